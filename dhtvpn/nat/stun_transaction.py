"""One STUN request, sent again until its response comes (RFC 8489 section 6.2.1)."""

import asyncio
from collections.abc import Callable

from aioice import stun

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError
from dhtvpn.nat.stun_router import StunRouter

RTO_S = 0.25
"""First retransmission after this. Ours: RFC 8489 says 0.5 s; most paths answer within 0.1 s."""

MAX_RTO_S = 1.0
"""The delay doubles up to this. Ours: requests are what keeps a NAT's filter open for the peer."""

AGAIN_S = 0.02
"""Least time between two requests sent out of turn. Ours: two sides must not set each other off."""


class StunTransaction:
    """Sends ``request`` to ``destination`` until an acceptable response comes from there.

    ``accept`` looks at a response (is it authentic?); one that it refuses, and one from another source,
    is dropped and counted, and the transaction goes on, so that nobody can end it from the side.
    """

    def __init__(
        self,
        router: StunRouter,
        send: Callable[[bytes, Endpoint], object],
        request: bytes,
        destination: Endpoint,
        *,
        drops: Drops,
        accept: Callable[[stun.Message], bool] = lambda message: True,
        send_out_of_turn: Callable[[bytes, Endpoint], object] | None = None,
        repeated: bool = True,
    ) -> None:
        """``send_out_of_turn``: in place of ``send`` for :meth:`send_again`. Not ``repeated``: sent again by
        that alone."""
        self._router = router
        self._send = send
        self._send_out_of_turn = send_out_of_turn or send
        self._repeated = repeated
        self._request = request
        self._id = request[8:20]
        self._destination = destination
        self._drops = drops
        self._accept = accept
        self._delay = RTO_S
        self._again_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[stun.Message] = self._loop.create_future()

    async def run(self, timeout_s: float) -> stun.Message:
        """The response, success or error. Raises TimedOutError."""
        self._router.expect(self._id, self._handle_response)
        try:
            self._send_and_rearm()
            async with asyncio.timeout(timeout_s):
                return await self._answer
        except TimeoutError:
            raise TimedOutError(f"no answer from {self._destination} in {timeout_s:g} s") from None
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._router.forget(self._id)

    def send_again(self) -> None:
        """Send once more at once, out of turn: something says that it will get through now."""
        now = self._loop.time()
        if not self._answer.done() and now >= self._again_at:
            self._again_at = now + AGAIN_S
            self._send_out_of_turn(self._request, self._destination)

    def _send_and_rearm(self) -> None:
        if self._answer.done():
            return
        self._send(self._request, self._destination)
        if self._repeated:
            self._timer = self._loop.call_later(self._delay, self._send_and_rearm)
            self._delay = min(2 * self._delay, MAX_RTO_S)

    def _handle_response(self, message: stun.Message, source: Endpoint) -> None:
        if source != self._destination:
            self._drops.count("stun", "source")
        elif not self._accept(message):
            self._drops.count("stun", "response")
        elif not self._answer.done():
            self._answer.set_result(message)
