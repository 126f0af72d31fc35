"""The public BitTorrent DHT as a Directory (BEP 5, BEP 44; docs/adr/0010-mainline.md).

Every envelope is a mutable item of its own, under the topic's public key. Which slots there are stands in
*pages*, which every writer reads, merges and writes again: when two write at once, one entry may be lost, so
every writer looks later whether its entry is still there. Nothing is pushed in this DHT: a watch asks again.
"""

import asyncio
import logging
import os
import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from nacl.signing import SigningKey

from dhtvpn.discovery.directory import Inspect, Inspected
from dhtvpn.discovery.mainline_items import (
    MAX_PAGES,
    PAGE_ENTRIES,
    PREFIX_SIZE,
    Entries,
    merge,
    open_page,
    page_salt,
    seal_page,
    slot_salt,
)
from dhtvpn.discovery.newest import NewestEnvelopes
from dhtvpn.discovery.sources import Condition
from dhtvpn.discovery.tasks import OwnedTasks
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import inspect as inspect_envelope
from dhtvpn.records.topic import Topic

log = logging.getLogger(__name__)

POLL_S: Final = (2.0, 5.0, 10.0, *(20.0,) * 15, 60.0)
"""Pauses between two looks of a watch; the last one repeats. A change begins anew: changes come together.
Each is varied by a quarter either way, so that members who began together do not go on asking together."""

RELAXED_S: Final = 300.0
"""The pause in place of those of a minute and of 20 s, from RELAXED_AFTER looks without a change on, where
another source tells of changes."""

RELAXED_AFTER: Final = 6

KEEP_S: Final = (3.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""After a publication a writer looks at these intervals whether its entry has been overwritten. Each is
varied by a quarter either way, so that two who collided do not collide again."""

MAX_KEPT = 64
"""Publications that are looked after at a time; of more, the oldest is left alone."""

MAX_KNOWN_PAGES = 256
"""Pages whose entries are remembered, to be put back when another writer has lost them."""

RETRY_MOST_S = 600.0
"""A slot that is listed but cannot be fetched is tried again at growing intervals up to this."""

MAX_FAILURES = 1024
"""Slots that a reader remembers as listed but absent."""


Found = Callable[[Entries], None]


class Items(Protocol):
    """Mutable items of BEP 44. Neither method raises for what the network does."""

    def get(self, public_key: bytes, salt: bytes) -> AsyncGenerator[bytes, None]:
        """Values signed by ``public_key``, newer ones later; ends when the search has ended."""

    async def put(self, signing_key: SigningKey, salt: bytes, value: bytes) -> int:
        """Write over whatever is there; returns how many nodes have stored it."""


class MainlineDirectory:
    """A Directory over ``items``. ``topic_of`` finds a topic by its DHT key: its keys sign the items."""

    def __init__(
        self,
        items: Items,
        topic_of: Callable[[bytes], Topic | None],
        *,
        condition: Callable[[], Condition] = lambda: Condition(True, ""),
        on_close: Sequence[Callable[[], Awaitable[None]]] = (),
        inspect: Inspect = inspect_envelope,
        drops: Drops | None = None,
        unix_time: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        poll_s: Sequence[float] = POLL_S,
        relaxed: Callable[[], bool] = lambda: False,
    ) -> None:
        """``relaxed``: whether another source is expected to tell of changes sooner."""
        self.condition = condition
        self._items, self._topic_of = items, topic_of
        self._on_close = on_close
        self._inspect, self._drops = inspect, drops or Drops()
        self._unix_time, self._random_bytes = unix_time, random_bytes
        self._poll_s, self._relaxed = poll_s, relaxed
        self._tasks = OwnedTasks()
        self._keepers: OrderedDict[tuple[bytes, bytes], asyncio.Task[None]] = OrderedDict()
        self._known: OrderedDict[tuple[bytes, int], Entries] = OrderedDict()
        self._listing: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        """Store the envelope and list it; the number of nodes that confirmed the less confirmed of both.
        0 where a newer one is there already. Raises DecodeError."""
        seen = self._inspect(envelope, dht_key, self._unix_time())
        topic = self._topic_of(dht_key)
        if topic is None:
            log.debug("nothing is known of the topic %s", dht_key.hex()[:8])
            return 0
        entry = (seen.slot[:PREFIX_SIZE], seen.sequence)
        stored, listed = await asyncio.gather(self._store(topic, seen, envelope), self._list(topic, *entry))
        if stored:
            self._look_after(topic, *entry)
        return min(stored, listed)

    async def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """What the pages list, as it is fetched."""
        async with aclosing(self._stream(dht_key, _Reading.look)) as envelopes:
            async for envelope in envelopes:
                yield envelope

    async def watch(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """The same, again and again; what is unchanged in the pages is not fetched again."""
        async with aclosing(self._stream(dht_key, _Reading.keep_looking)) as envelopes:
            async for envelope in envelopes:
                yield envelope

    async def close(self) -> None:
        """End every watch and task, then what the directory stands on."""
        await self._tasks.close()
        for close in self._on_close:
            await close()

    # Writing

    async def _store(self, topic: Topic, seen: Inspected, envelope: bytes) -> int:
        salt = slot_salt(topic, seen.slot[:PREFIX_SIZE])
        async with aclosing(self._items.get(topic.public_key, salt)) as values:
            async for value in values:
                try:
                    held = self._inspect(value, topic.dht_key, self._unix_time())
                except DecodeError:
                    continue
                if held.slot == seen.slot and held.sequence > seen.sequence:
                    return 0
        return await self._items.put(topic.signing_key, salt, envelope)

    async def _list(self, topic: Topic, prefix: bytes, sequence: int) -> int:
        """See that a page has the entry; returns how many nodes have stored that page."""
        lock = self._listing.setdefault(topic.dht_key, asyncio.Lock())
        async with lock:
            for number in range(MAX_PAGES):
                held = await self.read_page(topic, number)
                if prefix not in held and len(held) >= PAGE_ENTRIES:
                    continue
                entries = merge(held, {prefix: sequence}, self._known.get((topic.dht_key, number), {}))
                self.remember(topic, number, entries)
                value = seal_page(topic, number, entries, self._random_bytes)
                return await self._items.put(topic.signing_key, page_salt(topic, number), value)
        self._drops.count("mainline", "pages_full")
        return 0

    def _look_after(self, topic: Topic, prefix: bytes, sequence: int) -> None:
        former = self._keepers.pop((topic.dht_key, prefix), None)
        if former is not None:
            former.cancel()
        while len(self._keepers) >= MAX_KEPT:
            self._keepers.popitem(last=False)[1].cancel()
        self._keepers[topic.dht_key, prefix] = self._tasks.spawn(self._keep_listed(topic, prefix, sequence))

    async def _keep_listed(self, topic: Topic, prefix: bytes, sequence: int) -> None:
        """Two writers that merge at once lose an entry; its writer puts it back."""
        for pause_s in KEEP_S:
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
            for number in range(MAX_PAGES):
                held = await self.read_page(topic, number)
                if prefix in held or len(held) < PAGE_ENTRIES:
                    break
            if held.get(prefix, -1) < sequence:
                log.debug("an entry of %s was overwritten: listed again", topic.dht_key.hex()[:8])
                await self._list(topic, prefix, sequence)

    # Reading

    async def read_page(self, topic: Topic, number: int, found: Found | None = None) -> Entries:
        """All entries of a page. ``found`` is called with those of each answer at once."""
        entries: Entries = {}
        async with aclosing(self._items.get(topic.public_key, page_salt(topic, number))) as values:
            async for value in values:
                try:
                    answer = open_page(topic, number, value)
                except DecodeError as error:
                    self._drops.count("mainline", error.reason)
                    continue
                entries = merge(entries, answer)
                if found is not None:
                    found(answer)
        return entries

    def remember(self, topic: Topic, number: int, entries: Entries) -> None:
        """Entries known to be good, which our own writing puts back should they be lost."""
        key = (topic.dht_key, number)
        self._known[key] = merge(self._known.pop(key, {}), entries)
        if len(self._known) > MAX_KNOWN_PAGES:
            self._known.popitem(last=False)

    async def _stream(
        self, dht_key: bytes, feed: "Callable[[_Reading], Coroutine[Any, Any, None]]"
    ) -> AsyncGenerator[bytes, None]:
        topic = self._topic_of(dht_key)
        if topic is None:
            return
        reading = _Reading(self, topic)
        task = self._tasks.spawn(feed(reading))
        task.add_done_callback(lambda _: reading.arrived.set())
        try:
            while True:
                await reading.arrived.wait()
                reading.arrived.clear()
                ended = task.done()
                for envelope in reading.newest.take():
                    yield envelope
                if ended:
                    return
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def reader(self, topic: Topic) -> NewestEnvelopes:
        """What a new reader of ``topic`` begins with."""
        return NewestEnvelopes(topic.dht_key, self._inspect, self._drops)

    async def fetch(
        self, topic: Topic, prefix: bytes, newest: NewestEnvelopes, arrived: asyncio.Event
    ) -> None:
        """Offer what is in the slot that begins with ``prefix``."""
        async with aclosing(self._items.get(topic.public_key, slot_salt(topic, prefix))) as values:
            async for value in values:
                if newest.offer(value, self._unix_time()):
                    arrived.set()

    def pause_s(self, unchanged: int) -> float:
        """How long a watch waits that has looked ``unchanged`` times since the last change."""
        if unchanged >= RELAXED_AFTER and self._relaxed():
            pause_s = RELAXED_S
        else:
            pause_s = self._poll_s[min(unchanged, len(self._poll_s) - 1)]
        return pause_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret

    @property
    def retry_s(self) -> float:
        """After which a slot that is listed but absent is tried again, the first time."""
        return self._poll_s[0]


class _Reading:
    """One reader of one topic: fetches what the pages list and it has not."""

    def __init__(self, directory: MainlineDirectory, topic: Topic) -> None:
        self._directory, self._topic = directory, topic
        self.newest = directory.reader(topic)
        self.arrived = asyncio.Event()
        self._fetching: set[bytes] = set()
        self._failures: dict[bytes, int] = {}
        self._try_at: dict[bytes, float] = {}

    async def look(self) -> None:
        """Read every page, and fetch what is new in it from the first answer on."""
        async with asyncio.TaskGroup() as group:

            def found(entries: Entries) -> None:
                held = self._held()
                for prefix, sequence in entries.items():
                    if held.get(prefix, -1) < sequence and self._may_fetch(prefix):
                        self._fetching.add(prefix)
                        group.create_task(self._fetch(prefix, sequence))

            for number in range(MAX_PAGES):
                entries = await self._directory.read_page(self._topic, number, found)
                held = self._held()
                good = {prefix: sequence for prefix, sequence in entries.items() if prefix in held}
                self._directory.remember(self._topic, number, good)
                if len(entries) < PAGE_ENTRIES:
                    break

    async def keep_looking(self) -> None:
        """Until cancelled."""
        unchanged = 0
        while True:
            if len(self._failures) > MAX_FAILURES:  # somebody lists what is not there
                self._failures.clear()
            before = self._held()
            await self.look()
            unchanged = unchanged + 1 if self._held() == before else 0
            await asyncio.sleep(self._directory.pause_s(unchanged))

    async def _fetch(self, prefix: bytes, sequence: int) -> None:
        try:
            await self._directory.fetch(self._topic, prefix, self.newest, self.arrived)
        finally:
            self._fetching.discard(prefix)
        if self._held().get(prefix, -1) >= sequence:
            self._failures.pop(prefix, None)
            return
        failures = self._failures[prefix] = min(self._failures.get(prefix, 0) + 1, 16)
        pause_s = min(self._directory.retry_s * 2 ** (failures - 1), RETRY_MOST_S)
        self._try_at[prefix] = asyncio.get_running_loop().time() + pause_s

    def _may_fetch(self, prefix: bytes) -> bool:
        """Not twice at once, and not again and again what a page lists but nobody has."""
        patient = prefix in self._failures
        waiting = patient and asyncio.get_running_loop().time() < self._try_at[prefix]
        return prefix not in self._fetching and not waiting

    def _held(self) -> Entries:
        return {slot[:PREFIX_SIZE]: sequence for slot, sequence in self.newest.held()}
