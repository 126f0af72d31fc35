"""Readers of a topic in this process: a lookup or a watch, and where its envelopes may come from."""

import asyncio

from dhtvpn.discovery.directory import Inspect
from dhtvpn.discovery.newest import NewestEnvelopes
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint


class Reader:
    """One lookup or watch: verified envelopes wait here, newest per slot, until they are taken."""

    def __init__(self, dht_key: bytes, inspect: Inspect, drops: Drops) -> None:
        self.dht_key = dht_key
        self.newest = NewestEnvelopes(dht_key, inspect, drops)
        self.finished = False
        self._changed = asyncio.Event()
        self._woken = asyncio.Event()
        self._subscribed: dict[Endpoint, float] = {}

    def offer(self, envelope_untrusted: bytes, unix_time: float) -> None:
        """An envelope arrived, from wherever."""
        if self.newest.offer(envelope_untrusted, unix_time):
            self._changed.set()

    def finish(self) -> None:
        """Nothing more will come."""
        self.finished = True
        self._changed.set()

    async def wait(self) -> list[bytes]:
        """What has arrived; waits for the first. Empty only when finished."""
        await self._changed.wait()
        if not self.finished:
            self._changed.clear()
        return self.newest.take()

    def subscribe(self, storing_node: Endpoint, until: float) -> None:
        """From now on pushes of ``storing_node`` are welcome."""
        self._subscribed[storing_node] = max(until, self._subscribed.get(storing_node, until))

    def subscribed_to(self, storing_node: Endpoint, now: float) -> bool:
        return self._subscribed.get(storing_node, 0.0) > now

    def wake(self) -> None:
        """There is reason to look again now."""
        self._woken.set()

    async def sleep(self, duration_s: float) -> bool:
        """Until the time is up, or :meth:`wake`: True then."""
        try:
            async with asyncio.timeout(duration_s):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def forget_ended(self, now: float) -> None:
        """Leases that ran out; called with every renewal, so the table stays small."""
        for endpoint in [endpoint for endpoint, until in self._subscribed.items() if until <= now]:
            del self._subscribed[endpoint]


class Watches:
    """The watches of this process, by topic."""

    def __init__(self, drops: Drops) -> None:
        self._drops = drops
        self._readers: dict[bytes, list[Reader]] = {}

    def open(self, reader: Reader) -> None:
        self._readers.setdefault(reader.dht_key, []).append(reader)

    def close(self, reader: Reader) -> None:
        readers = self._readers.get(reader.dht_key, [])
        if reader in readers:
            readers.remove(reader)
        if not readers:
            self._readers.pop(reader.dht_key, None)

    def stored_here(self, dht_key: bytes, envelope: bytes, unix_time: float) -> None:
        """This node itself stores a new envelope of the topic."""
        for reader in self._readers.get(dht_key, []):
            reader.offer(envelope, unix_time)

    def pushed(
        self, dht_key: bytes, envelope_untrusted: bytes, source: Endpoint, now: float, unix_time: float
    ) -> bool:
        """False when nobody here subscribed to ``dht_key`` at ``source``."""
        readers = [r for r in self._readers.get(dht_key, []) if r.subscribed_to(source, now)]
        if not readers:
            self._drops.count("dht", "push_unsubscribed")
        for reader in readers:
            reader.offer(envelope_untrusted, unix_time)
        return bool(readers)

    def any_key(self) -> bytes | None:
        """The topic that has been watched longest; None when none is."""
        return next(iter(self._readers), None)

    def wake(self) -> None:
        """New contacts: every watch looks again now."""
        for readers in self._readers.values():
            for reader in readers:
                reader.wake()

    def finish(self) -> None:
        """The directory closes: every watch ends."""
        for readers in self._readers.values():
            for reader in readers:
                reader.finish()

    def __len__(self) -> int:
        return sum(len(readers) for readers in self._readers.values())
