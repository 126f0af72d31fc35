"""The storing side of a watch: a topic that changed here goes to everyone who has a lease on it."""

import asyncio
from collections.abc import Callable

from dhtvpn.discovery.queries import Queries
from dhtvpn.discovery.subscriptions import Subscriptions
from dhtvpn.discovery.tasks import OwnedTasks
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint

MAX_PUSHES = 512
"""Pushes under way; a watcher that misses one loses its lease, and with its next renewal asks for what it
lacks."""

ATTEMPTS = 3
PAUSE_S = 2.0
"""Between attempts, of two datagrams each. A watcher whose port is flooded answers one of them; without this
it would learn of the change with its next renewal, up to 25 s later."""


class Pushing:
    """Sends each change to its watchers, at most MAX_PUSHES at a time."""

    def __init__(
        self,
        queries: Queries,
        subscriptions: Subscriptions,
        tasks: OwnedTasks,
        drops: Drops,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._queries, self._subscriptions = queries, subscriptions
        self._tasks, self._drops, self._monotonic = tasks, drops, monotonic
        self._pushes = 0

    def changed(self, dht_key: bytes, envelope: bytes, source: Endpoint | None) -> None:
        """Push a new envelope of the topic to all watchers but ``source``, who stored it."""
        for watcher in self._subscriptions.watchers(dht_key, self._monotonic()):
            if watcher == source:
                continue
            if self._pushes >= MAX_PUSHES:
                self._drops.count("dht", "pushes_full")
                self._subscriptions.drop(dht_key, watcher)
                continue
            self._pushes += 1
            self._tasks.spawn(self._push(watcher, dht_key, envelope))

    async def _push(self, watcher: Endpoint, dht_key: bytes, envelope: bytes) -> None:
        try:
            if not await self._wanted(watcher, dht_key, envelope):
                self._subscriptions.drop(dht_key, watcher)
        finally:
            self._pushes -= 1

    async def _wanted(self, watcher: Endpoint, dht_key: bytes, envelope: bytes) -> bool:
        """Push until the watcher answers or its lease ends; True when it wants more."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE_S)
            if not self._subscriptions.holds(dht_key, watcher, self._monotonic()):
                break
            more = await self._queries.push(watcher, dht_key, envelope)
            if more is not None:
                return more
        return False
