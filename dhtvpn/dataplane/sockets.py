"""The engine's UDP sockets: options for large batches, and the sending and splitting of them.

UDP_SEGMENT lets one sendmsg carry a run of equal datagrams (the last may be shorter), UDP_GRO hands such a
run back from one recvmsg (udp(7), linux/udp.h). A kernel without them gets one call per datagram.
"""

import contextlib
import errno
import socket
import sys
from typing import Final

from dhtvpn.endpoint import Endpoint

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SOCKET_BUFFER: Final = 16 << 20  # bytes, ours: 0.1 s at 1 Gbit/s
MAX_RUN_DATAGRAMS: Final = 64  # UDP_MAX_SEGMENTS of kernels before 6.9
MAX_RUN_BYTES: Final = 65535 - 40 - 8  # what one IP packet holds

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h

RawAddress = tuple[str, int] | tuple[str, int, int, int]

DEFER: Final = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM))
TOO_LONG: Final = frozenset((errno.EMSGSIZE, errno.EINVAL))
"""What a run past the path MTU is answered with; kernels differ for UDP_SEGMENT."""
NO_RUNS: Final = frozenset((errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT))
"""What a run is answered with on a way that cannot send any: EIO where checksums are not offloaded."""


def raw_address(endpoint: Endpoint) -> tuple[int, RawAddress]:
    """The address family of ``endpoint``, and the address as socket calls give and take it."""
    if endpoint.is_ipv6:
        return int(socket.AF_INET6), (endpoint.host, endpoint.port, 0, 0)
    return int(socket.AF_INET), (endpoint.host, endpoint.port)


def prepare(sock: socket.socket, receive: bool) -> bool:
    """Set the options that the engine needs, and tell whether runs can be sent (UDP_SEGMENT).

    With ``receive`` False the socket is shared with the control process, whose choices stay.
    """
    sock.setblocking(False)
    if receive:
        for forced, ordinary in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER)
            except OSError:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, ordinary, SOCKET_BUFFER)
        with contextlib.suppress(OSError):
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


def segment_option(size: int) -> list[tuple[int, int, bytes]]:
    """The ancillary data that cuts a run into datagrams of ``size`` bytes."""
    return [(SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]


def stride_of(ancillary: list[tuple[int, int, bytes]], size: int) -> int:
    """The length of each datagram in what recvmsg returned; ``size`` where it is a single one."""
    for level, kind, data in ancillary:
        if level == SOL_UDP and kind == UDP_GRO:
            return int.from_bytes(data[:4], sys.byteorder) or size
    return size
