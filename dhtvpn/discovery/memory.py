"""A directory in memory, shared by the nodes of a test: the same promises as the real one, no network."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from dhtvpn.discovery.directory import Inspect
from dhtvpn.discovery.newest import NewestEnvelopes
from dhtvpn.discovery.storage import Outcome, Storage
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import inspect as inspect_envelope


class MemoryDirectory:
    """Give one object to every node that shall find the others."""

    def __init__(
        self,
        *,
        inspect: Inspect = inspect_envelope,
        drops: Drops | None = None,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._inspect = inspect
        self._drops = drops or Drops()
        self._unix_time = unix_time
        self._storage = Storage(inspect, self._drops)
        self._changed: dict[bytes, set[asyncio.Event]] = {}

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        """1 when stored, 0 when a newer sequence is held. Raises DecodeError when refused."""
        self._inspect(envelope, dht_key, self._unix_time())
        outcome = self._storage.put(dht_key, envelope, None, self._unix_time())
        if outcome is Outcome.REFUSED:
            raise DecodeError("expired")
        if outcome is Outcome.NEW:
            for event in self._changed.get(dht_key, ()):
                event.set()
        return int(outcome in (Outcome.NEW, Outcome.REFRESHED))

    async def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """Each slot's newest envelope, once."""
        for stored in self._storage.get(dht_key, self._unix_time()):
            yield stored.envelope

    async def watch(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """Each slot's newest envelope, then every newer one."""
        newest = NewestEnvelopes(dht_key, self._inspect, self._drops)
        changed = asyncio.Event()
        watchers = self._changed.setdefault(dht_key, set())
        watchers.add(changed)
        try:
            while True:
                changed.clear()
                for stored in self._storage.get(dht_key, self._unix_time()):
                    newest.offer(stored.envelope, self._unix_time())
                for envelope in newest.take():
                    yield envelope
                await changed.wait()
        finally:
            watchers.discard(changed)
            if not watchers and self._changed.get(dht_key) is watchers:
                del self._changed[dht_key]
