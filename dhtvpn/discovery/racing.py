"""Several sources of records at once: whatever verifies first is used, and no source waits for another.

A source that hangs, raises or ends costs the others nothing. Every envelope is checked here again, whatever
its source has promised, and is handed on with the name of the source that brought it first.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from dhtvpn.discovery.directory import Directory, Inspect
from dhtvpn.discovery.newest import NewestEnvelopes
from dhtvpn.discovery.tasks import OwnedTasks
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import inspect as inspect_envelope

log = logging.getLogger(__name__)

LOOKUP_DEADLINE_S = 10.0
"""A lookup ends at the latest then: a source that has found nothing by now is not waited for."""

PUBLISH_DEADLINE_S = 5.0
"""A publication returns at the latest then; a slower source goes on in the background, and what it confirms
is in :attr:`RacingDirectory.confirmed` later."""

PUBLISH_GRACE_S = 0.5
"""Once one source has confirmed, the others are waited for this long."""

RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a publication is repeated at a source that confirmed nothing; the last one repeats."""

RESTART_S = (0.5, 2.0, 10.0, 60.0)
"""Pauses before a watch that ended is opened again at its source; the last one repeats."""

STEADY_S = 60.0
"""A watch that lived this long starts at the first pause again when it ends."""

MAX_TOPICS = 64
"""Topics for which a publication is kept going; of more, the one published longest ago is given up."""


MAX_NOTED = 2048
"""Envelopes whose source is known afterwards: two of each member that a roster holds."""


class Finding(NamedTuple):
    """A verified envelope, and the name of the source that brought it first."""

    envelope: bytes
    source: str


class RacingDirectory:
    """A Directory over named sources. The sources belong to the caller, who closes them after this.

    ``confirmed``: by source name, how many holders confirmed the last publication of any topic there.
    """

    def __init__(
        self,
        sources: Mapping[str, Directory],
        *,
        inspect: Inspect = inspect_envelope,
        drops: Drops | None = None,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._sources = dict(sources)
        self._inspect = inspect
        self._drops = drops or Drops()
        self._unix_time = unix_time
        self._tasks = OwnedTasks()
        self._publications: dict[bytes, list[asyncio.Task[None]]] = {}
        self._races: set[_Race] = set()
        self._closed = False
        self._complaints: set[tuple[str, str]] = set()
        self._brought_by: OrderedDict[bytes, str] = OrderedDict()
        self._brought_again: OrderedDict[tuple[bytes, str], None] = OrderedDict()
        self._again: Callable[[bytes, str], None] = lambda envelope, source: None
        self.confirmed: dict[str, int] = dict.fromkeys(self._sources, 0)

    @property
    def names(self) -> list[str]:
        """The sources, in the order given."""
        return list(self._sources)

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        """Publish at every source; returns the confirmations of all together, after PUBLISH_DEADLINE_S at
        the latest. A source that confirmed nothing is asked again and again in the background, until
        another envelope is published under ``dht_key``. Raises DecodeError."""
        self._inspect(envelope, dht_key, self._unix_time())
        for task in self._publications.pop(dht_key, []):
            task.cancel()
        while len(self._publications) >= MAX_TOPICS:
            for task in self._publications.pop(next(iter(self._publications))):
                task.cancel()
        firsts: list[asyncio.Future[int]] = []
        tasks = self._publications[dht_key] = []
        for name, source in self._sources.items():
            first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            task = self._tasks.spawn(self._keep_publishing(name, source, dht_key, envelope, first))
            task.add_done_callback(partial(_settle, first))
            firsts.append(first)
            tasks.append(task)
        return await _sum_in_time(firsts)

    async def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """As :meth:`lookup_named`, without the names."""
        async with aclosing(self.lookup_named(dht_key)) as findings:
            async for finding in findings:
                self._note(finding)
                yield finding.envelope

    async def watch(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """As :meth:`watch_named`, without the names."""
        async with aclosing(self.watch_named(dht_key)) as findings:
            async for finding in findings:
                self._note(finding)
                yield finding.envelope

    def source_of(self, envelope: bytes) -> str | None:
        """Which source brought what ``lookup`` or ``watch`` has yielded; None when it was long ago."""
        return self._brought_by.get(_digest(envelope))

    def has_brought(self, source: str, envelope: bytes) -> bool:
        """Whether ``source`` has brought ``envelope``, first or after another."""
        digest = _digest(envelope)
        return self._brought_by.get(digest) == source or (digest, source) in self._brought_again

    def on_brought_again(self, handler: Callable[[bytes, str], None]) -> None:
        """Who is told of an envelope that another source has brought before, and of the source."""
        self._again = handler

    async def lookup_named(self, dht_key: bytes) -> AsyncGenerator[Finding, None]:
        """What any source finds, as it comes. Ends when all have ended, or after LOOKUP_DEADLINE_S."""
        race = self._open(dht_key)
        for name, source in self._sources.items():
            race.run(name, self._look_up_at(name, source, race))
        deadline = asyncio.get_running_loop().call_later(LOOKUP_DEADLINE_S, race.finish)
        try:
            async for finding in race.findings():
                yield finding
        finally:
            deadline.cancel()
            self._close_race(race)

    async def watch_named(self, dht_key: bytes) -> AsyncGenerator[Finding, None]:
        """What any source has, then what any of them learns, until it is closed or the directory is."""
        race = self._open(dht_key)
        for name, source in self._sources.items():
            race.run(name, self._keep_watching(name, source, race))
        try:
            async for finding in race.findings():
                yield finding
        finally:
            self._close_race(race)

    async def close(self) -> None:
        """End every watch, lookup and publication."""
        self._closed = True
        for race in self._races:
            race.finish()
        await self._tasks.close()

    # Inside

    def _note(self, finding: Finding) -> None:
        self._brought_by.setdefault(_digest(finding.envelope), finding.source)
        if len(self._brought_by) > MAX_NOTED:
            self._brought_by.popitem(last=False)

    def _note_again(self, envelope: bytes, source: str) -> None:
        key = _digest(envelope), source
        if key in self._brought_again:
            return
        self._brought_again[key] = None
        if len(self._brought_again) > MAX_NOTED:
            self._brought_again.popitem(last=False)
        self._again(envelope, source)

    def _open(self, dht_key: bytes) -> "_Race":
        newest = NewestEnvelopes(dht_key, self._inspect, self._drops)
        race = _Race(newest, self._unix_time, self._tasks, self._note_again, finished=self._closed)
        self._races.add(race)
        return race

    def _close_race(self, race: "_Race") -> None:
        race.finish()
        self._races.discard(race)

    async def _keep_publishing(
        self, name: str, source: Directory, dht_key: bytes, envelope: bytes, first: "asyncio.Future[int]"
    ) -> None:
        """Until the source has confirmed, or there is something newer to publish."""
        for attempt in range(1 << 30):
            stores = await self._publish_at(name, source, dht_key, envelope)
            if stores is None:  # refused for good: it has expired meanwhile
                return
            self.confirmed[name] = stores
            if not first.done():
                first.set_result(stores)
            if stores:
                return
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])

    async def _publish_at(self, name: str, source: Directory, dht_key: bytes, envelope: bytes) -> int | None:
        try:
            self._inspect(envelope, dht_key, self._unix_time())
            return await source.publish(dht_key, envelope)
        except DecodeError:
            return None
        except Exception as error:
            self._complain(name, "publish", error)
            return 0

    async def _look_up_at(self, name: str, source: Directory, race: "_Race") -> None:
        try:
            async with aclosing(source.lookup(race.dht_key)) as envelopes:
                async for envelope in envelopes:
                    race.offer(name, envelope)
        except Exception as error:
            self._complain(name, "lookup", error)

    async def _keep_watching(self, name: str, source: Directory, race: "_Race") -> None:
        """Open the source's watch, and again with growing pauses whenever it ends."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                async with aclosing(source.watch(race.dht_key)) as envelopes:
                    async for envelope in envelopes:
                        race.offer(name, envelope)
            except Exception as error:
                self._complain(name, "watch", error)
            failures = 0 if loop.time() - began > STEADY_S else failures
            await asyncio.sleep(RESTART_S[min(failures, len(RESTART_S) - 1)])
            failures += 1

    def _complain(self, name: str, what: str, error: Exception) -> None:
        """A warning the first time: it is tried again and again."""
        level = logging.DEBUG if (name, what) in self._complaints else logging.WARNING
        self._complaints.add((name, what))
        log.log(level, "source %s: %s failed (%s: %s)", name, what, type(error).__name__, error)


class _Race:
    """One lookup or watch, and what its sources have brought so far."""

    def __init__(
        self,
        newest: NewestEnvelopes,
        unix_time: Callable[[], float],
        tasks: OwnedTasks,
        again: Callable[[bytes, str], None],
        *,
        finished: bool,
    ) -> None:
        """``again`` is told of what is held already, and which source has brought it now."""
        self.dht_key = newest.dht_key
        self._newest = newest
        self._unix_time = unix_time
        self._owned = tasks
        self._again = again
        self._running: set[asyncio.Task[None]] = set()
        self._brought_by: dict[bytes, str] = {}
        self._changed = asyncio.Event()
        self._finished = finished

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Let one source take part; the race is finished when no source does any more."""
        task = self._owned.spawn(work)
        task.set_name(f"{name} {self.dht_key.hex()[:8]}")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def offer(self, name: str, envelope_untrusted: bytes) -> None:
        """An envelope from the source called ``name``."""
        if self._finished:
            return
        if self._newest.offer(envelope_untrusted, self._unix_time()):
            self._brought_by[envelope_untrusted] = name
            self._changed.set()
        elif self._newest.holds(envelope_untrusted):
            self._again(envelope_untrusted, name)

    async def findings(self) -> AsyncGenerator[Finding, None]:
        """As they come, until the race is finished."""
        while True:
            if self._running and not self._finished:
                await self._changed.wait()
            self._changed.clear()
            brought_by, self._brought_by = self._brought_by, {}
            for envelope in self._newest.take():
                yield Finding(envelope, brought_by[envelope])
            if self._finished or (not self._running and not self._brought_by):
                return

    def finish(self) -> None:
        """Nobody waits any more."""
        self._finished = True
        self._changed.set()
        for task in self._running:
            task.cancel()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._changed.set()


async def _sum_in_time(counts: "list[asyncio.Future[int]]") -> int:
    """Of what is known when all are, PUBLISH_GRACE_S after the first that is not 0, or at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PUBLISH_DEADLINE_S
    waiting, total = set(counts), 0
    while waiting and loop.time() < deadline:
        done, waiting = await asyncio.wait(
            waiting, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED
        )
        confirmed = sum(count.result() for count in done)
        if confirmed and not total:
            deadline = min(deadline, loop.time() + PUBLISH_GRACE_S)
        total += confirmed
    return total


def _settle(count: "asyncio.Future[int]", _: "asyncio.Task[None]") -> None:
    """The task ended without a first answer, perhaps before it began."""
    if not count.done():
        count.set_result(0)


def _digest(envelope: bytes) -> bytes:
    return hashlib.blake2b(envelope, digest_size=16).digest()
