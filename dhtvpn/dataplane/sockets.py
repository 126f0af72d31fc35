"""The engine's UDP sockets: options for large batches, and the sending and splitting of them.

UDP_SEGMENT lets one sendmsg carry a run of equal datagrams (the last may be shorter), UDP_GRO hands such a
run back from one recvmsg (udp(7), linux/udp.h). A kernel without them gets one call per datagram.
"""

import contextlib
import errno
import socket
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.wireguard.transport import OVERHEAD

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SOCKET_BUFFER: Final = 16 << 20  # bytes, ours: 0.1 s at 1 Gbit/s
MAX_RUN_DATAGRAMS: Final = 64  # UDP_MAX_SEGMENTS of kernels before 6.9
MAX_RUN_BYTES: Final = 65535 - 40 - 8  # what one IP packet holds

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h

Ancillary = tuple[int, int, bytes]
RawAddress = tuple[str, int] | tuple[str, int, int, int]

_SO_MEMINFO: Final = 55  # asm-generic/socket.h; the first of its numbers is SK_MEMINFO_RMEM_ALLOC
_IP_RECVTOS: Final = 13  # linux/in.h
_IP_PKTINFO, _IPV6_PKTINFO = 8, 50  # linux/in.h, linux/in6.h
_TRAFFIC_CLASS: Final = frozenset(
    ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS))
)

DEFER: Final = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM))
TOO_LONG: Final = frozenset((errno.EMSGSIZE, errno.EINVAL))
"""What a run past the path MTU is answered with; kernels differ for UDP_SEGMENT."""
NOT_OURS: Final = frozenset((errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH))
"""What a datagram is answered with that shall leave from an address which is not ours any more."""
NO_RUNS: Final = frozenset((errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT))
"""What a run is answered with on a way that cannot send any: EIO where checksums are not offloaded."""


def super_packet_payload(mtu: int) -> tuple[int, int]:
    """Payload bytes of IPv4 and IPv6 TCP super-packets that fill one run, at an inner MTU of ``mtu`` bytes.

    Without this limit the rest of a super-packet would need a call of its own, with a datagram or two.
    """
    pieces = max(1, min(MAX_RUN_DATAGRAMS, MAX_RUN_BYTES // (mtu + OVERHEAD)))
    return pieces * (mtu - 40), pieces * (mtu - 60)


def raw_address(endpoint: Endpoint) -> tuple[int, RawAddress]:
    """The address family of ``endpoint``, and the address as socket calls give and take it."""
    return int(socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET), endpoint.socket_address


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
        with contextlib.suppress(OSError):
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


def segment_option(size: int) -> list[Ancillary]:
    """The ancillary data that cuts a run into datagrams of ``size`` bytes."""
    return [(SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]


def ecn_option(family: int, ecn: int) -> list[Ancillary]:
    """The ancillary data that gives datagrams these ECN bits; nothing where they are 0."""
    if not ecn:
        return []
    value = ecn.to_bytes(4, sys.byteorder)
    if family == socket.AF_INET6:
        return [(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, value)]
    return [(socket.IPPROTO_IP, socket.IP_TOS, value)]


def source_option(address: IPv4Address | IPv6Address) -> list[Ancillary]:
    """The ancillary data that makes datagrams leave from ``address`` (ip(7), RFC 3542 section 6)."""
    if isinstance(address, IPv6Address):
        return [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, address.packed + bytes(4))]
    return [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + address.packed + bytes(4))]


def waiting_bytes(sock: socket.socket) -> int:
    """Kernel memory that holds datagrams which have arrived and were not read; 0 where that is unknown."""
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4), sys.byteorder)
    except OSError:
        return 0


def received(ancillary: list[Ancillary], size: int) -> tuple[int, int]:
    """What recvmsg said of the bytes it returned: the length of each datagram in them (``size`` where it is
    a single one), and their ECN bits."""
    stride, ecn = size, 0
    for level, kind, data in ancillary:
        if level == SOL_UDP:
            if kind == UDP_GRO:
                stride = int.from_bytes(data[:4], sys.byteorder) or size
        elif (level, kind) in _TRAFFIC_CLASS:
            ecn = int.from_bytes(data[:4], sys.byteorder) & 3
    return stride, ecn
