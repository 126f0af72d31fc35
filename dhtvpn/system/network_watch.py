"""Notices that this machine's network has changed: rtnetlink's multicast groups (rtnetlink(7)).

The kernel says that something happened to a link, an address or a default route; what there is now is then
read anew. Router advertisements, other tunnels and our own device make such messages too: only a difference
in what a node can use counts.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Final

from dhtvpn.errors import SystemRefusedError
from dhtvpn.system.links import NetworkFacts, network_facts

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.03
"""After a message: what belongs together (address, then route) comes within a few milliseconds."""

AGAIN_S: Final = 1.0
"""After a look that the kernel refused, as it does while others read: the next message may be far off."""

_GROUPS: Final = (
    0x1 | 0x10 | 0x40 | 0x100 | 0x400
)  # RTMGRP_LINK, IPV4_/IPV6_ IFADDR and ROUTE (linux/rtnetlink.h)
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr (linux/netlink.h)
_LINK_MESSAGES: Final = frozenset((16, 17, 20, 21))  # RTM_NEWLINK, DELLINK, NEWADDR, DELADDR
_ROUTE_MESSAGES: Final = frozenset((24, 25))  # RTM_NEWROUTE, DELROUTE
_DST_LEN: Final = 1  # offset of rtm_dst_len in struct rtmsg
_BUFFER: Final = 1 << 16
_BATCH: Final = 256


def concerns(messages: bytes) -> bool:
    """Pure: whether a datagram of netlink messages is about links, addresses or a default route. What cannot
    be read is: looking costs little."""
    return any(
        kind in _LINK_MESSAGES or (kind in _ROUTE_MESSAGES and body[_DST_LEN : _DST_LEN + 1] in (b"\0", b""))
        for kind, body in _split(messages)
    )


def _split(messages: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(messages):
        length, kind, *_ = _HEADER.unpack_from(messages, offset)
        if length < _HEADER.size:
            return
        yield kind, messages[offset + _HEADER.size : offset + length]
        offset += length + 3 & ~3


class NetworkWatch:
    """Calls ``changed`` with what there is now, from :meth:`run` on, whenever it differs from before."""

    def __init__(
        self,
        changed: Callable[[NetworkFacts], None],
        *,
        exclude_interfaces: Collection[str] = (),
        read: Callable[[Collection[str]], Awaitable[NetworkFacts]] = network_facts,
    ) -> None:
        self._changed = changed
        self._exclude = tuple(exclude_interfaces)
        self._read = read
        self._heard = asyncio.Event()
        self.facts: NetworkFacts | None = None
        """As of the last look; None before the first."""

    async def run(self) -> None:
        """Until cancelled. A kernel that lets nobody listen is logged: then only silence tells of changes."""
        try:
            listener = _listen()
        except OSError as error:
            log.warning("cannot follow changes of the network (%s): silence has to tell", error.strerror)
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, self._drain, listener)
        try:
            self.facts = await self._look()
            while True:
                await self._heard.wait()
                await asyncio.sleep(SETTLE_S)
                self._heard.clear()
                await self._compare()
        finally:
            loop.remove_reader(listener)
            listener.close()

    async def _compare(self) -> None:
        facts = await self._look()
        if facts is None:
            asyncio.get_running_loop().call_later(AGAIN_S, self._heard.set)
        elif facts != self.facts:
            self.facts = facts
            self._changed(facts)

    async def _look(self) -> NetworkFacts | None:
        try:
            return await self._read(self._exclude)
        except SystemRefusedError as error:
            log.warning("%s", error)
            return None

    def _drain(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                messages = listener.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: messages were lost
                self._heard.set()
                return
            if concerns(messages):
                self._heard.set()


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        listener.setblocking(False)
        listener.bind((0, _GROUPS))
        stack.pop_all()
    return listener
