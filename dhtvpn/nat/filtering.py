"""Asks whether our NAT filters by port: the asking side of ``filter_test``."""

import asyncio
import os
from enum import Enum
from typing import Final

from aioice import stun

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import UsageError
from dhtvpn.nat.filter_test import request
from dhtvpn.nat.port import UdpPort

SEND_AFTER_S: Final = (0.0, 0.2, 0.5)
"""When the request is sent, from the start: one may be lost, or its answer."""
DEADLINE_S: Final = 1.5


class Filtering(Enum):
    """From whom our NAT lets datagrams in (RFC 4787 section 5), as far as it matters."""

    NOT_BY_PORT = "not by port"
    """Endpoint-independent or address-dependent."""
    BY_PORT = "address-and-port-dependent"
    UNKNOWN = "unknown"


async def find_filtering(port: UdpPort, server: Endpoint) -> Filtering:
    """Ask one server that we see through the NAT. Never raises."""
    inquiry = _Inquiry(server)
    transaction_id = os.urandom(12)
    try:
        port.stun.expect(transaction_id, inquiry.heard)
    except UsageError:
        return Filtering.UNKNOWN
    try:
        async with asyncio.timeout(DEADLINE_S):
            before = 0.0
            for at in SEND_AFTER_S:
                if await _within(inquiry.got_in, at - before):
                    break
                before = at
                port.send(request(transaction_id), server)
            await inquiry.got_in.wait()
    except TimeoutError:
        return Filtering.BY_PORT if inquiry.server_answers else Filtering.UNKNOWN
    finally:
        port.stun.forget(transaction_id)
    return Filtering.NOT_BY_PORT


class _Inquiry:
    def __init__(self, server: Endpoint) -> None:
        self._server = server
        self.got_in = asyncio.Event()
        self.server_answers = False

    def heard(self, message: stun.Message, source: Endpoint) -> None:
        """The transaction id is 96 random bits that the server alone was told."""
        if message.message_class is not stun.Class.RESPONSE or source.host != self._server.host:
            return
        if source.port != self._server.port:
            self.got_in.set()
        elif "OTHER-ADDRESS" in message.attributes:
            self.server_answers = True


async def _within(event: asyncio.Event, duration_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), duration_s)
    except TimeoutError:
        return False
    return True
