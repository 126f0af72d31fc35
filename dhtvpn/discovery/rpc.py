"""Requests in flight: matched by message id and source address, timed out, never leaked.

A request is sent, sent once more after RETRANSMIT_S, and given up after HARD_TIMEOUT_S. Cancelling the
caller removes the entry and its timers.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from dhtvpn.discovery.wire import (
    MAX_VALUES_IN_REPLY,
    MESSAGE_ID_LENGTH,
    Reply,
    Request,
    Rpc,
    decode_reply,
    decode_value,
    encode_request,
)
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

HARD_TIMEOUT_S = 2.0
"""After this a node has failed; three times the round trip of a slow satellite link."""

RETRANSMIT_S = 0.5
"""One repeat, for one lost datagram; every request may safely arrive twice."""

VALUES_PATIENCE_S = 0.25
"""After the last datagram of a reply, how long its missing values are waited for."""

MAX_OUTSTANDING = 1024
"""Requests in flight; more are refused at once. About 1 MB."""

Send = Callable[[bytes, Endpoint], object]
OnValue = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded reply, how many of its values arrived, and the round trip of its first datagram."""

    reply: Reply
    values_received: int
    rtt_s: float


@dataclass(slots=True)
class _Pending:
    rpc: Rpc
    endpoint: Endpoint
    sent_at: float
    done: "asyncio.Future[None]"
    on_value: OnValue | None
    reply: Reply | None = None
    rtt_s: float = 0.0
    values: int = 0
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    patience: asyncio.TimerHandle | None = None


class Requests:
    """The asking side. ``send`` takes a datagram without the port's prefix octet."""

    def __init__(
        self,
        send: Send,
        drops: Drops,
        random_bytes: Callable[[int], bytes],
        *,
        seen_as: Callable[[Endpoint, Endpoint], object] = lambda seen, by: None,
    ) -> None:
        """``seen_as`` gets (our endpoint as it was seen, who saw it) from every reply that matches."""
        self._send, self._seen_as = send, seen_as
        self._drops = drops
        self._random_bytes = random_bytes
        self._pending: dict[bytes, _Pending] = {}

    async def ask(
        self,
        endpoint: Endpoint,
        request: Request,
        on_value: OnValue | None = None,
        *,
        retransmit: bool = True,
    ) -> Answer | None:
        """The answer of ``endpoint``, or None: no reply in time, a malformed one, or too many in flight.
        Values are handed to ``on_value`` as they come, unverified."""
        if len(self._pending) >= MAX_OUTSTANDING:
            self._drops.count("dht", "outstanding_full")
            return None
        loop = asyncio.get_running_loop()
        message_id = self._random_bytes(MESSAGE_ID_LENGTH)
        datagram = encode_request(message_id, request)
        pending = _Pending(request.rpc, endpoint, loop.time(), loop.create_future(), on_value)
        pending.timers = [loop.call_later(HARD_TIMEOUT_S, _finish, pending)]
        if retransmit:
            pending.timers.append(loop.call_later(RETRANSMIT_S, self._send, datagram, endpoint))
        self._pending[message_id] = pending
        try:
            self._send(datagram, endpoint)
            await pending.done
        finally:
            del self._pending[message_id]
            for timer in [*pending.timers, pending.patience]:
                if timer is not None:
                    timer.cancel()
        if pending.reply is None:
            return None
        return Answer(pending.reply, pending.values, pending.rtt_s)

    def handle_reply(self, message_id: bytes, body_untrusted: bytes, source: Endpoint) -> None:
        """The first datagram of a reply. A malformed one from the node that was asked ends the request."""
        pending = self._match(message_id, source)
        if pending is None or pending.reply is not None or pending.done.done():
            return
        try:
            pending.reply = decode_reply(pending.rpc, body_untrusted, source)
        except DecodeError:
            self._drops.count("dht", "malformed_reply")
            _finish(pending)
            return
        loop = asyncio.get_running_loop()
        pending.rtt_s = loop.time() - pending.sent_at
        for timer in pending.timers:
            timer.cancel()
        pending.timers = []
        if pending.reply.seen is not None:
            self._seen_as(pending.reply.seen, source)
        self._progress(pending)

    def handle_value(self, message_id: bytes, body_untrusted: bytes, source: Endpoint) -> None:
        """One envelope of a reply; it may overtake the reply itself."""
        pending = self._match(message_id, source)
        if pending is None or pending.done.done():
            return
        if pending.on_value is None or pending.values >= MAX_VALUES_IN_REPLY:
            self._drops.count("dht", "unexpected_value")
            return
        try:
            envelope_untrusted = decode_value(body_untrusted)
        except DecodeError:
            self._drops.count("dht", "malformed_value")
            return
        pending.values += 1
        pending.on_value(envelope_untrusted)
        self._progress(pending)

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._pending)

    def _match(self, message_id: bytes, source: Endpoint) -> _Pending | None:
        pending = self._pending.get(message_id)
        if pending is None:
            self._drops.count("dht", "unsolicited")
            return None
        if pending.endpoint != source:
            self._drops.count("dht", "reply_source")
            return None
        return pending

    def _progress(self, pending: _Pending) -> None:
        """Done when every announced value is here; else wait a little longer for the next."""
        if pending.reply is None:
            return
        if pending.patience is not None:
            pending.patience.cancel()
        if pending.values >= pending.reply.values:
            _finish(pending)
            return
        pending.patience = asyncio.get_running_loop().call_later(VALUES_PATIENCE_S, _finish, pending)


def _finish(pending: _Pending) -> None:
    if not pending.done.done():
        pending.done.set_result(None)
