"""Measures the ways to peers beyond relays, and leaves one that delays or drops for another.

One that drops everything is left sooner, by ``liveness``; one that was guessed, and that gossip denies, as
soon as that is known. Only ways that carry packets are measured: an idle peer costs nothing here.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.mesh.way_samples import WaySamples, is_better
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.relaying import Relaying

log = logging.getLogger(__name__)

ROUND_S: Final = 3.0
MAX_WAYS: Final = 3
"""Measured for each peer, the one in use among them."""
BUSY_OCTETS: Final = 4000
"""A peer that so much went to or came from since the last round is measured: pings are less."""
VOLUNTEER_MS: Final = 20.0
"""So much slower may a member be before a stranger is asked to relay."""


class RelayWatch:
    """``move`` takes a peer to another way."""

    def __init__(
        self,
        *,
        table: PeerTable,
        liveness: Liveness,
        relaying: Relaying,
        move: Callable[[Peer, Endpoint], None],
    ) -> None:
        self._table, self._liveness, self._relaying, self._move = table, liveness, relaying, move
        self._samples: dict[int, dict[Endpoint, WaySamples]] = {}
        self._octets: dict[int, int] = {}

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

    async def _measure(self, peer: Peer) -> None:
        """One ping on each way; leave the one in use where another is much better."""
        present = peer.endpoint
        if present is None:
            return
        ways = list(dict.fromkeys([present, *self._relaying.ways_now(peer)]))[:MAX_WAYS]
        if len(ways) < 2:
            return
        known = self._samples.setdefault(peer.number, {})
        samples = self._samples[peer.number] = {way: known.get(way) or self._begin(way) for way in ways}
        answers = await asyncio.gather(*(self._liveness.try_path(peer, way) for way in ways))
        for way, round_trip_ms in zip(ways, answers, strict=True):
            samples[way].add(round_trip_ms)
        best = min(ways, key=lambda way: samples[way].score)
        if peer.endpoint == present and peer.relayed and is_better(samples[best], samples[present]):
            log.info("peer %s: %s is better", peer.id, self._relaying.describe(best))
            self._move(peer, best)
