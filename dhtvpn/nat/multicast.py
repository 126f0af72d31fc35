"""The LAN socket: one per address family, in a multicast group on every usable interface of this machine.

The groups end at the local link: TTL and hop limit are 1, and the addresses are of a local scope. The port is
shared (SO_REUSEADDR), so that the nodes of several networks on one machine all hear the group.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat.reading import ReadBudget
from dhtvpn.nat.socket_filter import attach, group_filter

log = logging.getLogger(__name__)

LAN_PORT: Final = 14690
"""Ours; below the ports that Linux gives out by itself, and assigned to nobody by IANA."""

GROUP_IPV4: Final = "239.255.68.86"
"""In the IPv4 Local Scope, which is the smallest one administratively scoped (RFC 2365 section 6.1)."""

GROUP_IPV6: Final = "ff12::d7:6876:706e"
"""Link-local scope, not assigned by IANA, so with the T flag (RFC 4291 section 2.7): ff12, not ff02."""

MAX_INTERFACES: Final = 32
"""Interfaces used; a machine with more (of containers) has them in an order that the kernel chose."""

READ_BATCH: Final = 16
RECEIVE_BUFFER: Final = 1 << 18
"""Bytes of kernel buffer: answers of some hundred members that come at once."""

MAX_DATAGRAM: Final = 2048

_IP_PKTINFO, _IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 8, 49, 29  # linux/in.h, linux/in6.h


class LocalLink(NamedTuple):
    """An interface on which neighbours may be, and the families in which it has an address."""

    number: int
    name: str
    ipv4: bool
    ipv6: bool


Handler = Callable[[bytes, Endpoint], None]


class MulticastPort:
    """Made by :meth:`open`; reads nothing before :meth:`start_reading`. Sends without blocking or raising."""

    def __init__(
        self,
        sockets: dict[int, socket.socket],
        links: Callable[[], Awaitable[Sequence[LocalLink]]],
        datagram_size: int,
        drops: Drops,
    ) -> None:
        self._sockets = sockets
        self._links = links
        self._datagram_size = datagram_size
        self._drops = drops
        self._joined: dict[tuple[int, int], str] = {}
        self._handler: Handler | None = None
        self._loop = asyncio.get_running_loop()
        self._budget = ReadBudget(time.monotonic())
        self._resume: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        links: Callable[[], Awaitable[Sequence[LocalLink]]],
        *,
        datagram_size: int,
        drops: Drops,
        port: int = LAN_PORT,
    ) -> "MulticastPort":
        """Bind the LAN port. ``links`` tells the interfaces; every datagram has ``datagram_size`` octets,
        others are dropped. Raises SystemRefusedError where neither family can be had."""
        sockets: dict[int, socket.socket] = {}
        refusal: OSError | None = None
        for family in (4, 6):
            try:
                sockets[family] = _open_socket(family, port)
            except OSError as error:
                refusal = error
                continue
            with contextlib.suppress(OSError):  # without it they are dropped here
                attach(sockets[family], group_filter(family, datagram_size))
        if not sockets:
            reason = refusal.strerror if refusal is not None else "no address family"
            raise SystemRefusedError(f"cannot open UDP port {port} for LAN discovery ({reason})")
        return cls(sockets, links, datagram_size, drops)

    @property
    def interfaces(self) -> list[str]:
        """Names of the interfaces on which the group has been joined, in either family."""
        return sorted(set(self._joined.values()))

    def start_reading(self, handler: Handler) -> None:
        """Let datagrams in; each goes to ``handler`` with its source."""
        self._handler = handler
        self._read()

    async def survey(self) -> bool:
        """Join the groups on interfaces that have come, forget those that have gone; True when any came.

        Raises SystemRefusedError when the kernel does not tell the interfaces.
        """
        found = await self._links()
        if self._closed:
            return False
        usable = {
            (family, link.number): link.name
            for link in list(found)[:MAX_INTERFACES]
            for family, has_address in ((4, link.ipv4), (6, link.ipv6))
            if has_address and family in self._sockets
        }
        for gone in self._joined.keys() - usable.keys():
            with contextlib.suppress(OSError):  # with the interface the kernel has left the group
                self._membership(*gone, join=False)
            del self._joined[gone]
        came = False
        for key, name in usable.items():
            if key not in self._joined and self._join(*key):
                came = True
                self._joined[key] = name
        return came

    def send(self, data: bytes) -> int:
        """To the group on every interface; returns how often it left."""
        sent = 0
        for family, index in list(self._joined):
            sent += self._send(family, index, data)
        return sent

    def close(self) -> None:
        """Stop reading and leave the groups. May be called twice."""
        self._closed = True
        if self._resume is not None:
            self._resume.cancel()
        for opened in self._sockets.values():
            self._loop.remove_reader(opened)
            opened.close()
        self._sockets = {}
        self._joined = {}

    def _join(self, family: int, index: int) -> bool:
        try:
            self._membership(family, index, join=True)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # joined, though we had forgotten
                self._drops.count("lan", "join_refused")
                return False
        return True

    def _membership(self, family: int, index: int, *, join: bool) -> None:
        opened = self._sockets[family]
        if family == 4:
            request = struct.pack("=4s4si", socket.inet_aton(GROUP_IPV4), bytes(4), index)  # struct ip_mreqn
            option = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
            opened.setsockopt(socket.IPPROTO_IP, option, request)
        else:
            request = socket.inet_pton(socket.AF_INET6, GROUP_IPV6) + struct.pack("=I", index)
            option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
            opened.setsockopt(socket.IPPROTO_IPV6, option, request)

    def _send(self, family: int, index: int, data: bytes) -> bool:
        opened = self._sockets[family]
        port = opened.getsockname()[1]
        try:
            if family == 4:
                info = struct.pack("=i4s4s", index, bytes(4), bytes(4))  # struct in_pktinfo
                opened.sendmsg([data], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, (GROUP_IPV4, port))
            else:
                opened.sendto(data, (GROUP_IPV6, port, 0, index))
        except OSError:
            self._drops.count("lan", "send_failed")
            return False
        return True

    def _read(self) -> None:
        self._resume = None
        for opened in self._sockets.values():
            self._loop.add_reader(opened, self._read_batch, opened)

    def _read_batch(self, opened: socket.socket) -> None:
        """What is there, but no more than a tenth of a core: of a flood the kernel drops the rest."""
        began = time.thread_time()
        self._drain(opened)
        pause_s = self._budget.spend(time.thread_time() - began, time.monotonic())
        if pause_s and not self._closed:
            for each in self._sockets.values():
                self._loop.remove_reader(each)
            if self._resume is None:
                self._resume = self._loop.call_later(pause_s, self._read)

    def _drain(self, opened: socket.socket) -> None:
        for _ in range(READ_BATCH):
            if self._closed:
                return
            try:
                data, address = opened.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                self._drops.count("lan", "receive_failed")
                continue
            if len(data) != self._datagram_size:
                self._drops.count("lan", "size")
            elif self._handler is not None:
                self._handler(data, Endpoint.from_socket(address))


def _open_socket(family: int, port: int) -> socket.socket:
    """Bound to every address of this machine; hears only the groups that it has joined itself."""
    opened = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if family == 4:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            opened.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            opened.bind((GROUP_IPV4, port))
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
            with contextlib.suppress(OSError):  # Linux 4.20
                opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
            opened.bind(("::", port))  # a link-local group can be bound on one interface only
    except BaseException:
        opened.close()
        raise
    return opened
