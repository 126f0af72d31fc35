"""Pings along every path: measures the round trip, keeps NAT mappings open, notices a path that is gone."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer

log = logging.getLogger(__name__)

INTERVAL_S = 15.0
"""Between pings of an idle path. UDP mappings last two minutes at least by RFC 4787 (REQ-5), 30 s in
practice."""
REPLY_DEADLINE_S = 1.0
LOST_AFTER = 4
"""Unanswered pings in a row, one second apart, after which a path counts as lost."""
HURRIED_LOST_AFTER = 3
"""The same where there is a doubt, each after LEAST_DEADLINE_S or four round trips."""
LEAST_DEADLINE_S = 0.3
MAX_WAITING = 64
"""Tokens outstanding per peer; the oldest is forgotten first."""


@dataclass
class _Waiting:
    sent: dict[bytes, tuple[float, asyncio.Future[float]]] = field(default_factory=dict)


class Liveness:
    """Measures peers; whoever wants a single measurement calls :meth:`ping`."""

    def __init__(
        self,
        *,
        send_frame: Callable[[Peer, frames.Frame], None],
        random_bytes: Callable[[int], bytes],
        lost: Callable[[Peer], None],
        answer_frame: Callable[[Peer, frames.Frame], None] | None = None,
        send_frame_to: Callable[[Peer, Endpoint, frames.Frame], None] | None = None,
    ) -> None:
        """``answer_frame`` sends by the path that the peer's newest frame came by, ``send_frame_to`` by a
        path that is not in use; ``lost`` is told that the one in use does not work any more."""
        self._send_frame = send_frame
        self._answer_frame = answer_frame or send_frame
        self._send_frame_to = send_frame_to
        self._doubts: dict[int, asyncio.Event] = {}
        self._random_bytes = random_bytes
        self._lost = lost
        self._waiting: dict[int, _Waiting] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def watch(self, peer: Peer) -> None:
        """Keep an eye on ``peer`` from now until it is lost or :meth:`forget` is called."""
        task = self._tasks.get(peer.number)
        if task is None or task.done():
            self._tasks[peer.number] = asyncio.create_task(self._watch(peer), name=f"ping {peer.id}")

    def forget(self, peer: Peer) -> None:
        task = self._tasks.pop(peer.number, None)
        if task is not None:
            task.cancel()
        self._waiting.pop(peer.number, None)
        self._doubts.pop(peer.number, None)

    def doubt(self, peer: Peer) -> None:
        """Something suggests that the path in use is gone: look at once."""
        doubt = self._doubts.get(peer.number)
        if doubt is not None:
            doubt.set()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def frame_received(self, peer: Peer, frame: frames.Ping | frames.Pong) -> None:
        """Answer a Ping; match a Pong to what we sent."""
        if isinstance(frame, frames.Ping):
            self._answer_frame(peer, frames.Pong(frame.token))
            return
        sent = self._waiting.get(peer.number, _Waiting()).sent.pop(frame.token, None)
        if sent is not None and not sent[1].done():
            sent[1].set_result((_now() - sent[0]) * 1e3)

    async def ping(self, peer: Peer, deadline_s: float = REPLY_DEADLINE_S) -> float | None:
        """One round trip in milliseconds, or None when nothing came back in time."""
        before = peer.endpoint
        rtt_ms = await self._round_trip(peer, None, deadline_s)
        if rtt_ms is not None and peer.endpoint == before:
            peer.rtt_ms = rtt_ms if peer.rtt_ms is None else 0.7 * peer.rtt_ms + 0.3 * rtt_ms
        return rtt_ms

    async def try_path(
        self, peer: Peer, endpoint: Endpoint, deadline_s: float = REPLY_DEADLINE_S
    ) -> float | None:
        """The same by a path that is not in use."""
        return await self._round_trip(peer, endpoint, deadline_s)

    async def _round_trip(self, peer: Peer, endpoint: Endpoint | None, deadline_s: float) -> float | None:
        waiting = self._waiting.setdefault(peer.number, _Waiting()).sent
        while len(waiting) >= MAX_WAITING:
            waiting.pop(next(iter(waiting)))
        token = self._random_bytes(frames.TOKEN_SIZE)
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        waiting[token] = (_now(), answer)
        if endpoint is None or self._send_frame_to is None:
            self._send_frame(peer, frames.Ping(token))
        else:
            self._send_frame_to(peer, endpoint, frames.Ping(token))
        try:
            return await asyncio.wait_for(answer, deadline_s)
        except TimeoutError:
            return None
        finally:
            waiting.pop(token, None)

    async def _watch(self, peer: Peer) -> None:
        missed = 0
        doubt = self._doubts.setdefault(peer.number, asyncio.Event())
        while missed < (HURRIED_LOST_AFTER if doubt.is_set() else LOST_AFTER):
            started = _now()
            received = peer.heard_bytes
            deadline_s = _hurried_deadline_s(peer) if doubt.is_set() else REPLY_DEADLINE_S
            if await self.ping(peer, deadline_s) is not None or peer.heard_bytes != received:
                missed = 0
                doubt.clear()
                await _wait(doubt, INTERVAL_S)
            else:
                missed += 1
                await asyncio.sleep(max(0.0, deadline_s - (_now() - started)))
        doubt.clear()
        log.info("peer %s: no answer to %d pings, the path is lost", peer.id, missed)
        peer.rtt_ms = None
        self._tasks.pop(peer.number, None)  # this one: whoever is told may want another
        self._lost(peer)


def _hurried_deadline_s(peer: Peer) -> float:
    """Long enough for an answer on a path that works as it did."""
    expected = REPLY_DEADLINE_S / 2 if peer.rtt_ms is None else 4 * peer.rtt_ms / 1e3
    return min(REPLY_DEADLINE_S, max(LEAST_DEADLINE_S, expected))


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)


def _now() -> float:
    return asyncio.get_running_loop().time()
