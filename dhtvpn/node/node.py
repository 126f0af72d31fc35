"""One joined network: runs its parts, and ends them."""

import asyncio
import logging
import time
from dataclasses import replace
from ipaddress import IPv4Address

from dhtvpn.discovery.sources import Dht
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Occasion, Peer
from dhtvpn.node.assembly import Assembly
from dhtvpn.node.bootstrap import Bootstrapper
from dhtvpn.node.hints import keep_aiming
from dhtvpn.node.patience import happens

log = logging.getLogger(__name__)

LONE_CHECK_S = 1.0
"""How often a node without contacts looks whether it has some; being reached wakes it at once."""
FIRST_SURVEY_S = 0.7
"""How long the first record waits for the public endpoint. Without it peers would start with half the
candidates; later than this they had better start with the host's own."""


class Node(Assembly):
    """A node of one network. ``run`` until cancelled, then ``depart`` and ``close``."""

    async def run(self) -> None:
        """Find and connect everyone, until cancelled or ``stop_requested``."""
        contacts = self._memory.recall()  # first of all: it needs nobody's answer but the peer's
        await self.sources.start()
        self.stock.load(self.taken_ipv4())
        self.tunnels.forward(self.config.relay_octets_per_s)
        loops = [
            self.surveying.run(contacts),
            self.recovery.run(),
            self._announce_when_surveyed(),
            self.finder.run(),
            self.on_demand.run(),
            self.saving.run(),
            self._expire_stock_loop(),
            self.relaying.run(self._relay_candidates),
            self.relay_watch.run(),
            self.reporter.run(),
        ]
        if self.port_mapper is not None:
            self.port_mapper.attach(
                self._network_events.mapping_changed, lambda: self.surroundings.public_endpoints
            )
            loops.append(self.port_mapper.run())
        if self.sources.hints is not None and self.config.peers:
            loops.append(keep_aiming(self.sources.hints, self.config.peers, self._families))
        if self.dht is not None:
            bootstrapper = Bootstrapper(
                directory=self.dht,
                names=self._known_names,
                remembered=contacts,
                families=self._families,
                say=self.events.say,
                answered=self._network_events.directory_reached,
            )
            loops += [bootstrapper.run(), self._compare_clocks_when_reached(self.dht)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            await self.stop_requested.wait()
            for task in tasks:
                task.cancel()

    async def depart(self) -> None:
        """Tell peers and directory that this node goes. Quick: nobody is waited for longer than a second."""
        for peer in self.table.connected():
            if peer.node_key is not None:
                self.tunnels.send_frame(peer, frames.Goodbye())
        goodbye = self.announcer.goodbye(replace(self._record(), leaving=True))
        release = self.port_mapper.release() if self.port_mapper is not None else asyncio.sleep(0)
        await asyncio.gather(goodbye, release)

    async def close(self) -> None:
        """Release everything but the descriptors, which belong to the daemon."""
        await self._background.close()
        await self.on_demand.close()
        await self.direct_probes.close()
        await self.paths.close()
        await self.relay_watch.close()
        self.greetings.close()
        await self.liveness.close()
        self.path_probes.close()
        await self.mtu_routes.close()
        await self.members.close()
        self.tunnels.close()
        self.saving.now()

    # Loops

    async def _announce_when_surveyed(self) -> None:
        if not await happens(self.surveying.done, FIRST_SURVEY_S):
            log.info("publishing without a public endpoint for now")
        await self.announcer.run()

    async def _compare_clocks_when_reached(self, dht: Dht) -> None:
        while not dht.size:
            await self.events.changed(LONE_CHECK_S)
        await self.clock.run()

    async def _expire_stock_loop(self) -> None:
        """A stock peer sends nothing when idle: after REJECT_AFTER_TIME without a handshake we know no
        more about it."""
        while True:
            await asyncio.sleep(10.0)
            for stock in self.stock.all():
                handshake = self.tunnels.last_handshake(stock.peer)
                stale = handshake is None or time.monotonic() - handshake > 180.0
                if stale and stock.peer.move(Occasion.PATH_LOST):
                    self._path_events.changed(stock.peer)

    # What the local API asks for

    def taken_ipv4(self) -> set[IPv4Address]:
        """Overlay addresses that somebody holds, as far as this node knows."""
        return {self.claim.address, *(peer.ipv4 for peer in self.table.all() if peer.ipv4)}

    def try_for_direct(self, peer: Peer) -> None:
        """Somebody waits for a direct path: both sides try now."""
        self._path_events.try_for_direct(peer)
