"""From which of its own addresses a node answers: from the one that was asked.

A host with several addresses in one family would otherwise answer from the one that the kernel prefers,
and whoever asked drops an answer from elsewhere. The kernel tells the address that a datagram was sent to
as ancillary data, and takes it back as the source of an answer (IP_PKTINFO in ip(7), RFC 3542 section 6).

All that answers goes out this way: the DHT, the STUN service, ICE checks, handshakes. The engine is told the
address of a path where the host has several (``UdpPort.heard_at``). What was heard in another network is
forgotten: an address may still be ours when its link is gone.
"""

import socket
import struct
from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from dhtvpn.endpoint import Endpoint

MAX_REMEMBERED: Final = 1024
"""Askers remembered, the latest ones: an answer follows its question within moments."""
ANCILLARY_SIZE: Final = socket.CMSG_SPACE(20)

_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50  # linux/in.h, linux/in6.h
_V4 = struct.Struct("=i4s4s")  # interface, our address, the header's destination
_V6_SIZE = 20

Ancillary = list[tuple[int, int, bytes]]


def tell_addresses(opened: socket.socket, family: int) -> None:
    """Have the kernel say of each datagram which address it was sent to."""
    if family == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


class HeardAt:
    """Asker -> the ancillary data that makes an answer leave from where the question came in."""

    def __init__(self) -> None:
        self._latest: OrderedDict[Endpoint, Ancillary] = OrderedDict()

    def __len__(self) -> int:
        return len(self._latest)

    def remember(self, asker: Endpoint, ancillary: Ancillary) -> None:
        """Note what ``recvmsg`` said of a datagram from ``asker``. Other ancillary data is ignored, and so
        are link-local askers: the interface says from where to send."""
        answer = None if asker.is_link_local else _answer(ancillary)
        if answer is None:
            return
        self._latest[asker] = answer
        self._latest.move_to_end(asker)
        if len(self._latest) > MAX_REMEMBERED:
            self._latest.popitem(last=False)

    def answer_to(self, asker: Endpoint) -> Ancillary:
        """For ``sendmsg``; empty where nothing is known: the kernel chooses."""
        return self._latest.get(asker, [])

    def address_for(self, asker: Endpoint) -> IPv4Address | IPv6Address | None:
        """The address of ours at which ``asker`` was heard last; None where nothing is known."""
        for level, _, data in self.answer_to(asker):
            return IPv4Address(data[4:8]) if level == socket.IPPROTO_IP else IPv6Address(data[:16])
        return None

    def forget(self, asker: Endpoint) -> None:
        """The address is not ours any more."""
        self._latest.pop(asker, None)

    def forget_all(self) -> None:
        """The network is another one."""
        self._latest.clear()


def _answer(ancillary: Ancillary) -> Ancillary | None:
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _V4.size:
            _, own, _ = _V4.unpack_from(data)
            return [(level, kind, _V4.pack(0, own, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO and len(data) >= _V6_SIZE:
            return [(level, kind, data[:_V6_SIZE])]
    return None
