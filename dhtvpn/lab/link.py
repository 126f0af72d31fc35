"""The link emulator: carries Ethernet frames over any number of links, each between two TAP devices.

A process of its own (``python -m dhtvpn.lab.link``), for kernels without netem. It reads a JSON list of
``Wire`` from stdin, makes both devices of each, prints ``up``, and carries frames until SIGTERM; then it
prints one JSON object with its counters. TAP devices that nobody asks for offloads have none, so every frame
is as large as the device's MTU allows at most.

One loop serves all devices: it sleeps until a frame arrives or the next one is due, which a heap knows.
"""

import fcntl
import heapq
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Self

from dhtvpn.lab import namespaces
from dhtvpn.lab.link_schedule import Conditions, OneWay

MULTICAST_REPORTS = bytes.fromhex("333300000016")
"""How frames to all MLDv2-capable routers begin (RFC 3810). They are not carried: the kernel sends them some
time in the first second, nobody listens, and with their share of a line's chance the same seed would lose
other frames each time."""

FRAME_MAX = 2048
"""A frame of an MTU of 1500 with its Ethernet header, and some to spare."""

BATCH = 64
"""Frames read from one device before the others and the clock get a look."""

LATE_S = 0.005
"""A frame that leaves this long after it was due counts as late: the machine was too busy."""

NICENESS = -10
"""Before what is measured: a link that waits for the processor would be a slower link."""

_PATIENCE_S = 0.2  # so that ``stop`` is seen
_SPARE_FILES = 64
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000


@dataclass(frozen=True)
class Wire:
    """One link: a device in each of two namespaces, and what happens to frames between them, each way."""

    namespace_one: str
    device_one: str
    namespace_other: str
    device_other: str
    conditions: Conditions
    seed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**{**value, "conditions": Conditions(**value["conditions"])})


def open_tap(namespace: str, name: str) -> int:
    """Make the TAP device ``name`` in ``namespace`` and leave this thread there. Raises OSError."""
    namespaces.enter(namespace)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


class Emulator:
    """Open devices and what is under way between them. ``devices`` holds both descriptors of each wire."""

    def __init__(self, wires: Sequence[Wire], devices: Sequence[tuple[int, int]]) -> None:
        self._ways: dict[int, tuple[int, OneWay]] = {}
        for wire, (one, other) in zip(wires, devices, strict=True):
            self._ways[one] = (other, OneWay(wire.conditions, 2 * wire.seed))
            self._ways[other] = (one, OneWay(wire.conditions, 2 * wire.seed + 1))
        self._due: list[tuple[float, int]] = []
        self._woken_at: dict[int, float] = {}
        self._running = True
        self.late = 0

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """A signal handler: ``run`` returns soon."""
        self._running = False

    def run(self) -> None:
        """Carry frames until ``stop``."""
        with select.epoll() as readable:
            for device in self._ways:
                readable.register(device, select.EPOLLIN)
            while self._running:
                # epoll itself waits in whole milliseconds, select in microseconds.
                select.select([readable], [], [], self._patience_s())
                for device, events in readable.poll(0):
                    if events & select.EPOLLERR:  # the device has gone, with its namespace
                        readable.unregister(device)
                    else:
                        self._read(device)
                self._deliver(time.monotonic())

    def counters(self) -> dict[str, int]:
        """Sums over all links and both directions."""
        names = ("carried", "carried_bytes", "lost", "reordered", "overflowed")
        sums = {name: sum(getattr(way, name) for _, way in self._ways.values()) for name in names}
        return {**sums, "late": self.late}

    def _patience_s(self) -> float:
        """Until the next frame is due."""
        return min(_PATIENCE_S, max(0.0, self._due[0][0] - time.monotonic())) if self._due else _PATIENCE_S

    def _read(self, device: int) -> None:
        way = self._ways[device][1]
        now = time.monotonic()
        for _ in range(BATCH):
            try:
                frame = os.read(device, FRAME_MAX)
            except OSError:  # nothing more, or the device is not up yet
                break
            if not frame.startswith(MULTICAST_REPORTS):
                way.offer(frame, now)
        self._wake_for(device, way)

    def _wake_for(self, device: int, way: OneWay) -> None:
        """Have the heap know when the next frame from ``device`` is due. An entry that has become too early
        does no harm: nothing is taken then."""
        due = way.next_due()
        if due is not None and due < self._woken_at.get(device, float("inf")):
            self._woken_at[device] = due
            heapq.heappush(self._due, (due, device))

    def _deliver(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, device = heapq.heappop(self._due)
            if self._woken_at.get(device) == due:
                del self._woken_at[device]
            target, way = self._ways[device]
            frames = way.take(now)
            if now - due > LATE_S:
                self.late += len(frames)
            _write(target, frames)
            self._wake_for(device, way)


def _write(device: int, frames: list[bytes]) -> None:
    for frame in frames:
        try:
            os.write(device, frame)
        except OSError:  # the device is down: lost, as on a wire that was pulled
            return


def main() -> int:
    """Run until SIGTERM."""
    wires = [Wire.from_json(value) for value in json.load(sys.stdin)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * len(wires) + _SPARE_FILES), hard))
    devices = [
        (open_tap(wire.namespace_one, wire.device_one), open_tap(wire.namespace_other, wire.device_other))
        for wire in wires
    ]
    with suppress(OSError):
        os.nice(NICENESS)
    emulator = Emulator(wires, devices)
    signal.signal(signal.SIGTERM, emulator.stop)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    emulator.run()
    with suppress(BrokenPipeError):  # nobody listens any more
        os.write(sys.stdout.fileno(), json.dumps(emulator.counters()).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
