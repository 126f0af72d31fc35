"""The link emulator: carries Ethernet frames between a TAP device in each of two namespaces.

A process of its own (``python -m dhtvpn.lab.bench.link``), for kernels without netem. TAP devices that
nobody asks for offloads have none, so every frame is as large as the device's MTU allows at most. Prints
``up`` when both devices exist, and one JSON object with its counters when it is told to end (SIGTERM).
"""

import argparse
import fcntl
import json
import os
import select
import signal
import struct
import sys
import time
from types import FrameType

from dhtvpn.lab import namespaces
from dhtvpn.lab.bench.link_schedule import Conditions, OneWay

FRAME_MAX = 2048
"""A frame of an MTU of 1500 with its Ethernet header, and some to spare."""

BATCH = 64
"""Frames read from one device before the other one and the clock get a look."""

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000


def open_tap(namespace: str, name: str) -> int:
    """Make the TAP device ``name`` in ``namespace`` and leave this thread there. Raises OSError."""
    namespaces.enter(namespace)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


class Emulator:
    """Two devices and what is under way between them."""

    def __init__(self, one: int, other: int, conditions: Conditions, seed: int) -> None:
        self._ways = (
            (one, other, OneWay(conditions, 2 * seed)),
            (other, one, OneWay(conditions, 2 * seed + 1)),
        )
        self._devices = [one, other]
        self._running = True

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """A signal handler: ``run`` returns soon."""
        self._running = False

    def run(self) -> None:
        """Carry frames until ``stop``."""
        while self._running:
            ready, _, _ = select.select(self._devices, [], [], self._patience_s())
            for source, target, way in self._ways:
                if source in ready:
                    _read(source, way)
                _write(target, way.take(time.monotonic()))

    def counters(self) -> dict[str, int]:
        """Sums over both directions."""
        names = ("carried", "carried_bytes", "lost", "reordered", "overflowed")
        return {name: sum(getattr(way, name) for _, _, way in self._ways) for name in names}

    def _patience_s(self) -> float:
        """Until the next frame is due; a fifth of a second at most, so that ``stop`` is seen."""
        dues = [due for _, _, way in self._ways if (due := way.next_due()) is not None]
        return min(0.2, max(0.0, min(dues) - time.monotonic())) if dues else 0.2


def _read(device: int, way: OneWay) -> None:
    now = time.monotonic()
    for _ in range(BATCH):
        try:
            frame = os.read(device, FRAME_MAX)
        except OSError:  # nothing more, or the device is not up yet
            return
        way.offer(frame, now)


def _write(device: int, frames: list[bytes]) -> None:
    for frame in frames:
        try:
            os.write(device, frame)
        except OSError:  # the device is down: lost, as on a wire that was pulled
            return


def main() -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(
        description="carry frames between a TAP device in each of two namespaces"
    )
    for name in ("namespace_one", "device_one", "namespace_other", "device_other"):
        parser.add_argument(name)
    for name in ("delay-s", "jitter-s", "loss", "reordering"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    conditions = Conditions(chosen.delay_s, chosen.jitter_s, chosen.loss, chosen.reordering)
    one = open_tap(chosen.namespace_one, chosen.device_one)
    other = open_tap(chosen.namespace_other, chosen.device_other)
    emulator = Emulator(one, other, conditions, chosen.seed)
    signal.signal(signal.SIGTERM, emulator.stop)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    emulator.run()
    sys.stdout.write(json.dumps(emulator.counters()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
