"""Sends a datagram that no link may fragment: the option is the socket's, not the call's, so it is set around
the rare call that wants it.

All other datagrams may be fragmented. What is at most the path MTU never is; and while a path has just
shrunk, fragments arrive where there would be nothing (docs/adr/0008-path-mtu.md).
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# linux/in.h, linux/in6.h: not in the socket module
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_PROBE: Final = 3
"""Don't fragment, whatever the kernel has heard of the path; refuse what our own link does not take."""


@contextmanager
def unfragmented(sock: socket.socket) -> Iterator[None]:
    """Meanwhile a datagram that a link cannot take whole is refused (EMSGSIZE) or lost on the way."""
    level, option = (
        (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        if sock.family == socket.AF_INET6
        else (socket.IPPROTO_IP, IP_MTU_DISCOVER)
    )
    before = sock.getsockopt(level, option)
    sock.setsockopt(level, option, PMTUDISC_PROBE)
    try:
        yield
    finally:
        sock.setsockopt(level, option, before)
