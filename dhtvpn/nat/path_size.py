"""Asks which sizes get through to a server whole: the asking side of ``size_test``.

The datagrams leave with "don't fragment", from a socket of their own. Silence alone tells nothing: a small
question goes with every round, and sizes are judged by what passed while others did not.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterable
from typing import Final, Protocol

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.size_test import LEAST, request

IPV4_HEADERS, IPV6_HEADERS = 20 + 8, 40 + 8
"""Bytes of IP and UDP around a question."""

LIKELY: Final = (1500, 1492, 1480, 1440, 1420, 1400, 1280)
"""Bytes with headers, tried first: Ethernet, PPPoE (RFC 2516), 6in4, and what tunnels, mobile networks and
IPv6's least have."""

BETWEEN: Final = 12
"""Sizes tried between the longest of these that passed and the next one."""
ROUNDS: Final = 3
"""How often an unanswered question is sent: one may be lost, or its answer. A server's limit for one source
(stun_limit.SOURCE_BURST) is above all that this comes to."""
LONGEST_WAIT_S, LEAST_WAIT_S = 0.5, 0.15
"""For answers, in each round; once one has come, three round trips between these."""

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3  # linux/in.h, linux/in6.h
_ID: Final = slice(8, 20)
_MAX_ANSWER: Final = 128
MAX_ANSWERS: Final = 64
"""Datagrams read in a round: a server that sends on and on is left to itself."""


class Channel(Protocol):
    """Datagrams that nobody may cut into pieces, to one server and from it."""

    def send(self, data: bytes) -> bool:
        """Whether it left; never raises."""
        ...

    async def receive(self) -> bytes: ...


class WholeDatagrams:
    """A channel over a socket of its own. Raises OSError where there is none to be had."""

    def __init__(self, server: Endpoint) -> None:
        self._server = server
        self._socket = socket.socket(
            socket.AF_INET6 if server.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        )
        level, option = (
            (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER)
            if server.is_ipv6
            else (socket.IPPROTO_IP, _IP_MTU_DISCOVER)
        )
        self._socket.setsockopt(level, option, _PMTUDISC_PROBE)

    def send(self, data: bytes) -> bool:
        try:
            self._socket.sendto(data, self._server)
        except OSError:  # longer than the link's MTU, or no way there
            return False
        return True

    async def receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, source = await loop.sock_recvfrom(self._socket, _MAX_ANSWER)
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise
                source = None  # what ICMP said of an earlier one
            if source is not None and Endpoint.from_socket(source) == self._server:
                return data
            await asyncio.sleep(0)  # strangers may send on and on

    def close(self) -> None:
        self._socket.close()


async def path_mtu(server: Endpoint) -> int | None:
    """Bytes of the longest IP packet, up to LIKELY's first, that gets to ``server`` whole; None where it does
    not answer the question. Never raises."""
    with contextlib.ExitStack() as stack:
        try:
            channel = WholeDatagrams(server)
        except OSError:
            return None
        stack.callback(channel.close)
        return await search(channel, IPV6_HEADERS if server.is_ipv6 else IPV4_HEADERS)


async def search(channel: Channel, headers: int) -> int | None:
    """:func:`path_mtu` over ``channel``, to four bytes where little is between two likely sizes."""
    likely = sorted(size - headers for size in LIKELY)
    inquiry = _Inquiry(channel)
    best = await inquiry.longest([LEAST, *likely])
    if best is None:
        return None
    above = next((size for size in likely if size > best), None)
    between = [] if above is None else list(range(best + 4, above, 4))
    if between:
        step = -(-len(between) // BETWEEN)
        best = max(best, await inquiry.longest([LEAST, *between[step - 1 :: step]]) or 0)
    return best + headers


class _Inquiry:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._wait_s = LONGEST_WAIT_S

    async def longest(self, sizes: Iterable[int]) -> int | None:
        """The longest of ``sizes`` that is answered. They are asked from the longest on, and no more of those
        below one that has passed: where a server's limit cuts us off, the short ones are not missed."""
        left = {os.urandom(12): size for size in sorted(sizes, reverse=True)}
        best: int | None = None
        loop = asyncio.get_running_loop()
        for _ in range(ROUNDS):
            sent_at = loop.time()
            gone = [self._channel.send(request(name, size)) for name, size in left.items()]
            if not any(gone):
                break
            with contextlib.suppress(TimeoutError, OSError):
                for _ in range(MAX_ANSWERS):
                    if not left:
                        break
                    async with asyncio.timeout(sent_at + self._wait_s - loop.time()):
                        answer = await self._channel.receive()
                    passed = left.get(bytes(answer[_ID]))
                    if passed is not None:
                        best = passed
                        left = {name: size for name, size in left.items() if size > passed}
                        patience_s = 3 * (loop.time() - sent_at)
                        self._wait_s = min(self._wait_s, max(LEAST_WAIT_S, patience_s))
            if not left:
                break
        return best
