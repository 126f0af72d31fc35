"""Does the DHT answer, how long does a lookup take, and what is the time elsewhere?"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from dhtvpn.discovery.directory import KEY_LENGTH
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.own_address import outgoing_addresses
from dhtvpn.nat.port import UdpPort
from dhtvpn.netcheck.report import Directory

LOOKUP_S: Final = 2.0
"""A lookup that takes longer is given up; one among thousands of nodes takes half a second."""


@dataclass(frozen=True)
class Found:
    """``contacts``: nodes that answered, the fastest first. ``clock_offset_s``: the median of how far their
    clocks are ahead of ours."""

    directory: Directory
    contacts: tuple[Endpoint, ...]
    clock_offset_s: float | None


class DirectoryProbe:
    """One visit to the DHT over ``port``. Nobody is told to keep us in its table (BEP 43), and nothing of a
    network is asked for: the lookup is for a random key."""

    def __init__(self, port: UdpPort, drops: Drops) -> None:
        families = frozenset(port.families)
        own = OwnIds(families, os.urandom, addresses=outgoing_addresses())
        self._directory = KademliaDirectory(
            port.send_dht, own=own, drops=drops, families=families, read_only=True
        )
        port.on_dht(self._directory.handle_datagram)
        self._entered = asyncio.Event()

    async def contacts(self) -> Sequence[Endpoint]:
        """Those that answer, once the lookup is over."""
        await self._entered.wait()
        return self._directory.contacts()

    async def run(self, known: Sequence[Endpoint]) -> Found:
        """Go in by ``known``. Never raises for what nodes do."""
        directory = self._directory
        answered = await directory.bootstrap(known) if known else 0
        lookup_ms = await self._lookup() if answered else None
        self._entered.set()
        contacts = tuple(directory.contacts())
        offsets = await directory.ask_time(contacts) if contacts else []
        return Found(
            Directory(len(known), answered, directory.size, lookup_ms),
            contacts,
            median(offsets) if offsets else None,
        )

    async def close(self) -> None:
        """End what is under way."""
        await self._directory.close()

    async def _lookup(self) -> float | None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(LOOKUP_S):
                async for _ in self._directory.lookup(os.urandom(KEY_LENGTH)):
                    pass
        except TimeoutError:
            return None
        return round((loop.time() - began) * 1000, 1)
