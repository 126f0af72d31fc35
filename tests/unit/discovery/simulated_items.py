"""BEP 44 in memory and virtual time: mutable items with a sequence number, latency, and nothing checked."""

import asyncio
import random
from dataclasses import replace

from dhtvpn.records.topic import Topic

HOLDERS = 8


def topic_with(dht_key: bytes, secret: bytes = bytes(32)) -> Topic:
    """A topic whose DHT key is ``dht_key``, as fake envelopes need it."""
    return replace(Topic.derive(secret + dht_key[:12], 1), dht_key=dht_key)


class SimulatedItems:
    """One for all members. ``values`` is what storing nodes hold."""

    def __init__(self, latency_s: float = 0.02, seed: int = 1) -> None:
        self.values: dict[tuple[bytes, bytes], bytes] = {}
        self.gets: list[bytes] = []
        """The salt of every search."""
        self.puts: list[bytes] = []
        self._latency_s, self._random = latency_s, random.Random(seed)

    async def get(self, public_key, salt):
        self.gets.append(salt)
        await self._travel()
        value = self.values.get((public_key, salt))
        if value is not None:
            yield value
            await self._travel()

    async def put(self, signing_key, salt, value):
        """As libtorrent does it: a search, then whatever was there is written over."""
        assert len(value) <= 990 and len(salt) <= 64
        self.puts.append(salt)
        await self._travel()
        await self._travel()
        self.values[bytes(signing_key.verify_key), salt] = value
        return HOLDERS

    async def _travel(self) -> None:
        await asyncio.sleep(self._latency_s * self._random.uniform(0.5, 1.5))
