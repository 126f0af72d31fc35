"""Which offloads are on: what the engine tells when it is ready, and ``dhtvpn status`` shows."""

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from dhtvpn.dataplane.messages import OFFLOADS
from dhtvpn.dataplane.sockets import SOL_UDP, UDP_GRO


def socket_offloads(
    sockets: Sequence[socket.socket], segments: Iterable[bool], *, receive: bool
) -> tuple[str, ...]:
    """Those of the prepared UDP ``sockets``; one that works in only one of two families is not named.

    ``segments`` is what ``sockets.prepare`` told of each. ``receive`` False: the kernel does not steer
    data messages to us, and runs are not received.
    """
    on = {
        "udp_segment": all(segments),
        "kernel_demux": receive,
        "udp_gro": receive and all(map(_gro, sockets)),
    }
    return tuple(name for name in OFFLOADS if sockets and on.get(name, False))


def has_aes_instructions(cpu_info: str | None = None) -> bool:
    """Whether this processor computes AES-GCM by itself (AES and carry-less multiplication).

    ``cpu_info`` stands in for the text of /proc/cpuinfo.
    """
    if cpu_info is None:
        try:
            cpu_info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
    for line in cpu_info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, Arm
            flags = set(value.split())
            return "aes" in flags and bool(flags & {"pclmulqdq", "pmull"})
    return False


def _gro(sock: socket.socket) -> bool:
    """Whether the kernel takes UDP_GRO, which is on already: reading it back takes a newer kernel."""
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True
