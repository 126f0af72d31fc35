"""Asks nodes of the BitTorrent DHT where they see our port: for nodes that know no STUN server."""

import asyncio
import os
from collections.abc import Callable
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, TimedOutError
from dhtvpn.nat import krpc
from dhtvpn.nat.port import UdpPort

AGAIN_S: Final = 0.5
"""A ping is sent again after this, then after twice as long."""

MAX_PINGS: Final = 64
"""That wait for an answer at a time."""


class KrpcPings:
    """The pings of one port that are under way. An answer counts from whom we asked, with the transaction
    that we chose; every other message of that protocol is dropped and counted."""

    def __init__(self, port: UdpPort, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._port, self._random_bytes = port, random_bytes
        self._waiting: dict[bytes, tuple[Endpoint, asyncio.Future[Endpoint]]] = {}
        port.on_krpc(self.handle_datagram)

    async def ask(self, node: Endpoint, timeout_s: float) -> Endpoint:
        """Where ``node`` sees our port. Raises TimedOutError."""
        if len(self._waiting) >= MAX_PINGS:
            raise TimedOutError(f"{MAX_PINGS} pings are under way")
        transaction = self._random_bytes(krpc.TRANSACTION_SIZE)
        message = krpc.ping(self._random_bytes(krpc.ID_SIZE), transaction)
        answer: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        self._waiting[transaction] = (node, answer)
        try:
            async with asyncio.timeout(timeout_s):
                pause_s = AGAIN_S
                while True:
                    self._port.send(message, node)
                    done, _ = await asyncio.wait((answer,), timeout=pause_s)
                    if done:
                        return answer.result()
                    pause_s *= 2
        except TimeoutError:
            raise TimedOutError(f"no answer from {node} in {timeout_s:g} s") from None
        finally:
            del self._waiting[transaction]

    def handle_datagram(self, data: bytes, source: Endpoint) -> None:
        """A datagram that begins as messages of that protocol do. Never raises."""
        try:
            transaction, seen = krpc.transaction_and_endpoint(data)
        except DecodeError as error:
            self._port.drops.count("krpc", error.reason)
            return
        node, answer = self._waiting.get(transaction, (None, None))
        if answer is None:
            self._port.drops.count("krpc", "transaction")
        elif node != source:
            self._port.drops.count("krpc", "source")
        elif not answer.done():
            answer.set_result(seen)
