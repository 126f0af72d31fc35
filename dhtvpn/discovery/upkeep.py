"""What a node does for its routing table and its store when nobody asks it for anything."""

import asyncio
from collections.abc import Callable, Iterable

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.queries import Queries
from dhtvpn.discovery.routing import RoutingTable
from dhtvpn.discovery.tasks import OwnedTasks
from dhtvpn.discovery.wire import Rpc
from dhtvpn.endpoint import Endpoint

MAINTENANCE_S = 10.0
PING_AFTER_S = 900.0
"""A contact not heard of for this long is pinged, PINGS_PER_ROUND at a time: 10 octets per second at most.
Lookups do without: a dead contact costs them one soft timeout, and is dropped for it."""

PINGS_PER_ROUND = 1

FILL_AFTER_S, FILL_PING_S, FILL_LOOKUP_S = 3.0, 0.1, 1.0
"""How long filling the table after a start lets more urgent lookups go first, and the pause after each ping
and each lookup of it: some 5,000 octets per second for as many seconds as there are buckets."""


class Upkeep:
    """``expire`` forgets what has ended; it is called once in MAINTENANCE_S."""

    def __init__(
        self,
        queries: Queries,
        table: RoutingTable,
        tasks: OwnedTasks,
        *,
        expire: Callable[[], None],
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._queries, self._table, self._tasks = queries, table, tasks
        self._expire, self._monotonic, self._random_bytes = expire, monotonic, random_bytes

    async def run(self) -> None:
        """Forget what has ended, ping the quiet, look up buckets that nobody touched; until cancelled."""
        while True:
            await asyncio.sleep(MAINTENANCE_S)
            now = self._monotonic()
            self._expire()
            for contact in self._to_ping(now):
                self._tasks.spawn(self._queries.ping(contact))
            for target in self._table.refresh_targets(now, self._random_bytes)[:1]:
                await self._queries.closest(target, paths=1)  # to be misled here hides no record

    async def fill(self, remembered: Iterable[Endpoint]) -> None:
        """We are in the network again: get to know the others of those whom we remember, and some of every
        distance (Kademlia paper, section 2.3), without haste."""
        await asyncio.sleep(FILL_AFTER_S)
        for endpoint in remembered:
            if not self._table.knows(endpoint):
                self._tasks.spawn(self._queries.ask(endpoint, Rpc.PING, retransmit=False))
                await asyncio.sleep(FILL_PING_S)
        for target in self._table.bucket_targets(self._random_bytes):
            await self._queries.closest(target)
            await asyncio.sleep(FILL_LOOKUP_S)

    def _to_ping(self, now: float) -> list[Contact]:
        """The quiet. With one that has failed before goes a witness that our own network is up: where
        nobody answers nobody is dropped, and at rest nobody else may be asked for a long time."""
        quiet = self._table.longest_unheard(now, PING_AFTER_S, PINGS_PER_ROUND)
        standings = (self._table.get(contact.node_id, contact.family) for contact in quiet)
        if any(standing is not None and standing.failures for standing in standings):
            quiet += [standing.contact for standing in self._table.good()[:1]]
        return quiet
