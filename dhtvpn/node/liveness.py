"""Pings along every path: measures the round trip, keeps NAT mappings open, notices a path that is gone.

Who notices:

    idle        nothing was heard for as long as the path is known to stand (keepalive.py), 15 s at first
    silence     we send and nothing comes back: the engine's counters say so within a second
    doubt       somebody has reason to think that the path is gone: the network or the peer's record changed

Each of these makes up to PINGS pings in quick succession. The first answer, or any other packet of the peer,
settles it. Paths with a long round trip get the time that they need.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer
from dhtvpn.node.keepalive import IdleTime
from dhtvpn.node.patience import happens

log = logging.getLogger(__name__)

BUSY_INTERVAL_S = 15.0
"""Between pings of a path in use: they measure the round trip."""
BUSY_BYTES = 2000
"""Received since the last ping: more than pings and handshakes make."""
REPLY_DEADLINE_S = 1.0
PINGS = 5
"""Unanswered pings in a row after which a path counts as lost."""
PING_GAP_S, LONGEST_GAP_S = 0.2, 1.0
"""Between them: one and a half round trips within these bounds."""
LAST_WAIT_S, LONGEST_WAIT_S = 0.5, 3.0
"""After the last of them: three round trips within these bounds; a path of 1 s round trip gets 3 s."""
UNKNOWN_RTT_S = 0.3
UNKNOWN_WAIT_S = 1.5
"""The same while nothing is known of the path: its pings take 3.3 s in all."""
LATE_S = 1.0
"""So much longer answers are waited for where we have been late ourselves, and not just a little: they may
lie there unread."""
SILENCE_S, SILENCE_BESIDE_S = 0.75, 0.5
"""Sent so long without anything coming back (or two round trips): reason to ask. Ours: below what TCP and a
person notice, above the engine's 0.25 s between reports. The shorter one where there is another way: to leave
a path for one that works costs little, to make a new one much."""
REPORTED_S = 0.3
"""Two reports of the engine that follow each other are no further apart, on a machine that is not busy."""
ASKED_BESIDE, DECIDED_BESIDE = 1, 3
"""With the second ping the peer is asked by another way too. If it answers there, and nowhere else until the
third ping has had its time, the path is lost, and it is not the peer, or a machine, that is busy."""
STALLED_S = 0.2
"""A wait of ours so much longer than meant: this process stood still, and no ping had its time."""
ROUND_S = 60.0
"""Pings of one round are not given up before it ends, and it ends long before this."""
STALLS = 5
"""That often at most."""
SENDING_GAP_S = 1.5
"""Packets further apart than this are no stream to which there should have been an answer."""
MAX_WAITING = 64
"""Tokens outstanding per peer; the oldest is forgotten first."""


@dataclass
class _Waiting:
    sent: dict[bytes, tuple[float, asyncio.Future[float]]] = field(default_factory=dict)


@dataclass
class _Watched:
    """What is known of one watched peer's traffic. Times in monotonic seconds."""

    doubt: asyncio.Event
    rx_bytes: int
    tx_bytes: int
    sending_since: float | None = None
    """Since when we send without an answer."""
    sent_at: float = 0.0
    moved_at: float = 0.0
    """When anything went either way."""
    heard_at: float = 0.0


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
        other_way: Callable[[Peer], Endpoint | None] = lambda _: None,
    ) -> None:
        """``answer_frame`` sends by the path that the peer's newest frame came by, ``send_frame_to`` by a
        path that is not in use; ``lost`` is told that the one in use does not work any more. ``other_way``:
        one that may work while it does not."""
        self._other_way = other_way
        self._send_frame = send_frame
        self._answer_frame = answer_frame or send_frame
        self._send_frame_to = send_frame_to
        self._random_bytes = random_bytes
        self._lost = lost
        self._waiting: dict[int, _Waiting] = {}
        self._watched: dict[int, _Watched] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._idle: dict[int, IdleTime] = {}

    def watch(self, peer: Peer) -> None:
        """Keep an eye on ``peer`` from now until it is lost or :meth:`forget` is called."""
        task = self._tasks.get(peer.number)
        if task is None or task.done():
            watched = _Watched(asyncio.Event(), peer.heard_bytes, peer.tx_bytes)
            self._watched[peer.number] = watched
            self._tasks[peer.number] = asyncio.create_task(self._watch(peer, watched), name=f"ping {peer.id}")

    def forget(self, peer: Peer) -> None:
        task = self._tasks.pop(peer.number, None)
        if task is not None:
            task.cancel()
        self._waiting.pop(peer.number, None)
        self._watched.pop(peer.number, None)

    def idle_time(self, peer: Peer) -> IdleTime:
        """How long the path to ``peer`` may be idle, as far as is known."""
        return self._idle.setdefault(peer.number, IdleTime())

    def network_changed(self) -> None:
        """What was found out about NATs on the way does not hold any more."""
        self._idle.clear()

    def doubt(self, peer: Peer) -> None:
        """Ask a watched peer now whether it is still there."""
        watched = self._watched.get(peer.number)
        if watched is not None:
            watched.doubt.set()

    def packets_moved(self, peer: Peer) -> None:
        """The peer's byte counters have changed: doubt a path on which nothing comes back."""
        watched = self._watched.get(peer.number)
        if watched is None:
            return
        now = _now()
        watched.moved_at = now
        if peer.heard_bytes != watched.rx_bytes:
            watched.sending_since, watched.heard_at = None, now
        elif peer.tx_bytes != watched.tx_bytes:
            if watched.sending_since is None or now - watched.sent_at > SENDING_GAP_S:
                just_heard = now - watched.heard_at <= REPORTED_S
                watched.sending_since = watched.heard_at if just_heard else now
            elif now - watched.sending_since >= max(self._silence_s(peer), 2 * _rtt_s(peer)):
                watched.sending_since = None
                watched.doubt.set()
            watched.sent_at = now
        watched.rx_bytes, watched.tx_bytes = peer.heard_bytes, peer.tx_bytes

    def _silence_s(self, peer: Peer) -> float:
        return SILENCE_S if self._other_way(peer) is None else SILENCE_BESIDE_S

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

    async def _watch(self, peer: Peer, watched: _Watched) -> None:
        idle_s = 0.0
        while True:
            asked_at = peer.endpoint
            if not await self._answers(peer, watched):
                if peer.endpoint == asked_at:
                    break
                continue  # packets take another path since, of which these pings say nothing
            self.idle_time(peer).survived(idle_s)
            await self._until_due(peer, watched)
            idle_s = _now() - watched.moved_at
        self.idle_time(peer).died(idle_s)
        log.info("peer %s: no answer to %d pings, the path is lost", peer.id, PINGS)
        peer.rtt_ms = None
        self._watched.pop(peer.number, None)
        self._tasks.pop(peer.number, None)  # this one: whoever is told may want another
        self._lost(peer)

    async def _until_due(self, peer: Peer, watched: _Watched) -> None:
        """Until there is a doubt, nothing has been heard for long, or a busy path is to be measured."""
        began, received = _now(), peer.heard_bytes
        due_s = self.idle_time(peer).due_s(self._random_bytes(1)[0] / 255)
        watched.heard_at = watched.moved_at = began
        while True:
            due = watched.heard_at + due_s
            if peer.heard_bytes - received > BUSY_BYTES:
                due = min(due, began + BUSY_INTERVAL_S)
            left_s = due - _now()
            if left_s <= 0:
                return
            if await happens(watched.doubt, min(left_s, BUSY_INTERVAL_S)):
                return

    async def _answers(self, peer: Peer, watched: _Watched) -> bool:
        """Whether any of up to PINGS pings is answered, or anything else comes from the peer meanwhile. Fewer
        are enough where one by another way is answered."""
        watched.doubt.clear()  # not later: what comes up meanwhile may be about another path
        received, rtt_s = peer.heard_bytes, _rtt_s(peer)
        gap_s = min(LONGEST_GAP_S, max(PING_GAP_S, 1.5 * rtt_s))
        wait_s = min(LONGEST_WAIT_S, max(LAST_WAIT_S, 3 * rtt_s))
        if peer.rtt_ms is None:
            wait_s = UNKNOWN_WAIT_S
        pings: set[asyncio.Task[float | None]] = set()
        beside: asyncio.Task[float | None] | None = None
        number = stalls = 0
        until = _now() + (PINGS - 1) * gap_s + wait_s
        try:
            while number < PINGS:
                pings.add(asyncio.create_task(self.ping(peer, ROUND_S)))
                if beside is None and number >= ASKED_BESIDE and (way := self._other_way(peer)) is not None:
                    beside = asyncio.create_task(self.try_path(peer, way, ROUND_S))
                timeout_s, began = wait_s if number == PINGS - 1 else gap_s, _now()
                done, _ = await asyncio.wait(pings, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if peer.heard_bytes > received or any(map(_answered, done)):
                    return True
                if _now() - began > timeout_s + STALLED_S and stalls < STALLS:
                    stalls += 1
                    continue
                number += 1
                if number >= DECIDED_BESIDE and beside is not None and _answered(beside):
                    return False
            late_s = _now() - until
            if late_s <= wait_s:
                return False
            late_s = min(late_s, LATE_S)
            done, _ = await asyncio.wait(pings, timeout=late_s, return_when=asyncio.FIRST_COMPLETED)
            return peer.heard_bytes > received or any(map(_answered, done))
        finally:
            tasks = [*pings, *([beside] if beside is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _answered(ping: "asyncio.Task[float | None]") -> bool:
    return ping.done() and not ping.cancelled() and ping.result() is not None


def _rtt_s(peer: Peer) -> float:
    return UNKNOWN_RTT_S if peer.rtt_ms is None else peer.rtt_ms / 1e3


def _now() -> float:
    return asyncio.get_running_loop().time()
