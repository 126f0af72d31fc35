"""Moves a peer's packets from one path to another: off one that has died, back to a direct one that works.

The session is the same on every path, so a move costs no handshake and no packet: both ends take what comes
by either path. What decides is a ping that came back by the very path that is meant.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final, Protocol

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer
from dhtvpn.mesh.relayed import is_relayed
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.path_facts import Why
from dhtvpn.node.relaying import Relaying
from dhtvpn.node.tunnels import Tunnels

log = logging.getLogger(__name__)

SILENCE_S: Final = 0.5
"""A path by which nothing has come for so long is not held on to when the peer speaks by a relay."""

FOLLOW_S: Final = 2.0
"""So long after a move of our own we do not follow the peer to another relay: two that change at the same
time would swap relays for ever. Longer than a slow round trip."""


class Moved(Protocol):
    """Who is told that a peer's packets take another path."""

    def __call__(self, peer: Peer) -> None: ...


class Because(Protocol):
    """Who is told the reason of a move before it is made."""

    def __call__(self, peer: Peer, why: Why) -> None: ...


class PeerLeft(Protocol):
    """Who compares our way to a peer with the one that it has gone to."""

    def __call__(self, peer: Peer, way: Endpoint) -> None: ...


def _nobody_compares(peer: Peer, way: Endpoint) -> None:
    """Where relays are not measured."""


def _nobody_asks(peer: Peer, why: Why) -> None:
    """Where no reasons are kept."""


class PathChanges:
    """``moved`` is called after every move, ``because`` before some; ``peer_left`` where a peer has left a
    relay that works for another, and it is to be found out whether to do the same."""

    def __init__(
        self,
        *,
        tunnels: Tunnels,
        liveness: Liveness,
        relaying: Relaying,
        moved: Moved,
        because: Because = _nobody_asks,
        peer_left: PeerLeft = _nobody_compares,
    ) -> None:
        self._because, self._peer_left = because, peer_left
        self._tunnels, self._liveness, self._relaying, self._moved = tunnels, liveness, relaying, moved
        self._trials: dict[int, asyncio.Task[None]] = {}
        self._moved_at: dict[int, float] = {}

    def heard_elsewhere(self, peer: Peer, endpoint: Endpoint) -> None:
        """Something authentic came from ``peer`` by another path than ours to it."""
        if is_relayed(endpoint):
            if not peer.relayed or _is_silent(peer):
                self._liveness.doubt(peer)  # the peer may have lost the path that is ours
        elif peer.number not in self._trials:
            trial = asyncio.create_task(self._try(peer, endpoint), name=f"try {peer.id}")
            self._trials[peer.number] = trial
            trial.add_done_callback(lambda _: self._trials.pop(peer.number, None))

    def fall_back(self, peer: Peer) -> bool:
        """The path in use has died: go on through a relay, where there is one that has not failed."""
        way = self._relaying.fall_back(peer)
        if way is None:
            return False
        log.info("peer %s: going on through a relay", peer.id)
        self.move(peer, way)
        return True

    def told_by_relay(self, peer: Peer, endpoint: Endpoint) -> None:
        """``peer`` says something about paths through the relay ``endpoint``, which is not our way to it.
        Where ours has fallen silent, it has lost it and left it, and so do we; where it has not, the two ways
        are compared."""
        if not is_relayed(endpoint) or endpoint == peer.endpoint:
            return
        may_follow = self._may_follow(peer, endpoint)
        if _is_silent(peer) and may_follow:
            log.info("peer %s: has left the path in use", peer.id)
            self.follow(peer, endpoint)
            return
        self._liveness.doubt(peer)
        if peer.relayed and may_follow:
            self._peer_left(peer, endpoint)

    def follow(self, peer: Peer, endpoint: Endpoint) -> None:
        """Send to ``endpoint`` from now on, because the peer does."""
        self._because(peer, Why.PEER_LEFT_PATH)
        self.move(peer, endpoint)

    def _may_follow(self, peer: Peer, endpoint: Endpoint) -> bool:
        if not peer.relayed:
            return True
        just_moved = time.monotonic() - self._moved_at.get(peer.number, float("-inf")) < FOLLOW_S
        return not just_moved and endpoint in self._relaying.ways_now(peer)

    async def close(self) -> None:
        """End every trial."""
        trials = list(self._trials.values())
        for trial in trials:
            trial.cancel()
        await asyncio.gather(*trials, return_exceptions=True)

    async def _try(self, peer: Peer, endpoint: Endpoint) -> None:
        rtt_ms = await self._liveness.try_path(peer, endpoint)
        if rtt_ms is not None:
            self._take_direct(peer, endpoint, rtt_ms)

    def _take_direct(self, peer: Peer, endpoint: Endpoint, rtt_ms: float) -> None:
        if peer.relayed:
            log.info("peer %s: the direct path to %s works", peer.id, endpoint)
            self.move(peer, endpoint)
            peer.rtt_ms = rtt_ms

    async def try_directly(self, peer: Peer, endpoints: Sequence[Endpoint], deadline_s: float) -> bool:
        """Ping a relayed peer at each of ``endpoints``, and move to the first that answers, if any does."""
        pings = {
            asyncio.create_task(self._liveness.try_path(peer, endpoint, deadline_s)): endpoint
            for endpoint in endpoints
        }
        try:
            waiting = set(pings)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for ping in done:
                    if (rtt_ms := ping.result()) is not None:
                        self._take_direct(peer, pings[ping], rtt_ms)
                        return True
        finally:
            for ping in pings:
                ping.cancel()
            await asyncio.gather(*pings, return_exceptions=True)
        return False

    def move_to_better(self, peer: Peer, endpoint: Endpoint) -> None:
        """Send to ``endpoint`` from now on, because it delays or drops less."""
        self._because(peer, Why.BETTER_RELAY)
        self.move(peer, endpoint)

    def move(self, peer: Peer, endpoint: Endpoint) -> None:
        """Send to ``endpoint`` from now on, and measure how that goes."""
        peer.rtt_ms = None
        self._moved_at[peer.number] = time.monotonic()
        self._tunnels.aim(peer, endpoint)
        self._liveness.watch(peer)
        self._liveness.doubt(peer)
        self._moved(peer)

    def forget(self, peer: Peer) -> None:
        """``peer`` is gone."""
        self._moved_at.pop(peer.number, None)


def _is_silent(peer: Peer) -> bool:
    return time.monotonic() - peer.last_heard >= SILENCE_S
