"""Measures the ways to peers beyond relays, and leaves one that delays or drops for another.

One that drops everything is left sooner, by ``liveness``; one that was guessed, and that gossip denies, as
soon as that is known. Only ways that carry packets are measured: an idle peer costs nothing here.

A ping is answered by the way that it came by, so both ends see the same of a way. Whoever has left one tells
the other end by the way that it has gone to, and that end measures both and comes along where it sees no
reason not to: it may send so little that it would find out late.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.mesh.way_samples import KEPT, WaySamples, is_as_good, is_better
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.relaying import Relaying

log = logging.getLogger(__name__)

ROUND_S: Final = 3.0
MAX_WAYS: Final = 3
"""Measured for each peer, the one in use among them."""
BUSY_OCTETS: Final = 4000
"""A peer that so much went to or came from since the last round is measured: pings are less."""
AFTER_LOSS, BEFORE_FOLLOWING, GAP_S = KEPT, 4, 0.1
"""Pings on each way at once when one was lost on any of them, or came through where the one before had not:
they settle whether that was chance. The same when the peer has left the way in use; and between them."""
VOLUNTEER_MS: Final = 20.0
"""So much slower may a member be before a stranger is asked to relay."""


class RelayWatch:
    """``move`` takes a peer to another way, ``follow`` to one that it has gone to itself."""

    def __init__(
        self,
        *,
        table: PeerTable,
        liveness: Liveness,
        relaying: Relaying,
        move: Callable[[Peer, Endpoint], None],
        follow: Callable[[Peer, Endpoint], None],
    ) -> None:
        self._table, self._liveness, self._relaying = table, liveness, relaying
        self._move, self._followed = move, follow
        self._samples: dict[int, dict[Endpoint, WaySamples]] = {}
        self._octets: dict[int, int] = {}
        self._comparing: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Measure and move, until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            peers = [peer for peer in self._table.connected() if peer.relayed]
            for peer in peers:
                if (better := self._relaying.instead_of_guess(peer)) is not None:
                    self._move(peer, better)
            numbers = {peer.number for peer in peers}
            self._samples = {number: ways for number, ways in self._samples.items() if number in numbers}
            busy = [peer for peer in peers if self._is_busy(peer)]
            self._octets = {peer.number: peer.rx_bytes + peer.tx_bytes for peer in peers}
            await asyncio.gather(*(self._measure(peer) for peer in busy))

    def _is_busy(self, peer: Peer) -> bool:
        octets = peer.rx_bytes + peer.tx_bytes
        return octets - self._octets.get(peer.number, octets) >= BUSY_OCTETS

    def _begin(self, way: Endpoint) -> WaySamples:
        stranger = self._relaying.volunteer_of(way) is not None
        return WaySamples(VOLUNTEER_MS if stranger else 0.0)

    def peer_left(self, peer: Peer, way: Endpoint) -> None:
        """``peer`` has moved from our way to it to ``way``: do so too, where that is as good."""
        present = peer.endpoint
        if present is None or not peer.relayed or peer.number in self._comparing:
            return
        comparing = asyncio.create_task(self._follow(peer, present, way), name=f"follow {peer.id}")
        self._comparing[peer.number] = comparing
        comparing.add_done_callback(lambda _: self._comparing.pop(peer.number, None))

    async def close(self) -> None:
        """End every comparison."""
        comparing = list(self._comparing.values())
        for task in comparing:
            task.cancel()
        await asyncio.gather(*comparing, return_exceptions=True)

    async def _follow(self, peer: Peer, present: Endpoint, way: Endpoint) -> None:
        samples = {each: self._begin(each) for each in (present, way)}
        await self._look_closer(peer, samples, BEFORE_FOLLOWING)
        if peer.endpoint != present:
            return
        self._samples[peer.number] = samples  # older ones were taken of other times
        if is_as_good(samples[way], samples[present]):
            log.info("peer %s: has moved to %s, and so do we", peer.id, self._relaying.describe(way))
            self._followed(peer, way)

    async def _measure(self, peer: Peer) -> None:
        """One ping on each way, and more where it was lost; leave the one in use where another is better."""
        present = peer.endpoint
        if present is None:
            return
        known_ways = (present, *self._relaying.ways_now(peer), *self._relaying.known_ways(peer))
        ways = list(dict.fromkeys(known_ways))[:MAX_WAYS]
        if len(ways) < 2:
            return
        known = self._samples.setdefault(peer.number, {})
        samples = self._samples[peer.number] = {way: known.get(way) or self._begin(way) for way in ways}
        await self._ping(peer, samples)
        if any(each.changed for each in samples.values()):
            await self._look_closer(peer, samples, AFTER_LOSS)
        best = min(ways, key=lambda way: samples[way].score)
        if peer.endpoint == present and peer.relayed and is_better(samples[best], samples[present]):
            log.info("peer %s: %s is better", peer.id, self._relaying.describe(best))
            self._move(peer, best)

    async def _look_closer(self, peer: Peer, samples: dict[Endpoint, WaySamples], pings: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(pings):
                group.create_task(self._ping(peer, samples))
                await asyncio.sleep(GAP_S)

    async def _ping(self, peer: Peer, samples: dict[Endpoint, WaySamples]) -> None:
        """One ping on each way."""
        answers = await asyncio.gather(*(self._liveness.try_path(peer, way) for way in samples))
        for way, round_trip_ms in zip(samples, answers, strict=True):
            samples[way].add(round_trip_ms)
