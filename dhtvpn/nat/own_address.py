"""Which of this machine's addresses its datagrams to the internet come from, by asking the kernel."""

import contextlib
import socket
from typing import Final

_SOMEWHERE: Final = {
    socket.AF_INET: ("192.0.2.1", 9),
    socket.AF_INET6: ("2001:db8::1", 9),
}
"""Addresses for documentation (RFC 5737, RFC 3849): the default route leads there. Nothing is sent."""


def outgoing_addresses() -> list[str]:
    """At most one per family: the source address that the routing table chooses (connect(2) on a datagram
    socket sends nothing). Behind a NAT it is a private one."""
    addresses = []
    for family, somewhere in _SOMEWHERE.items():
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(somewhere)
            addresses.append(str(probe.getsockname()[0]).partition("%")[0])
    return addresses
