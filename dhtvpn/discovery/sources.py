"""The sources of records that one node uses, by name: raced, started, closed and judged together.

A new kind of source plugs in here: make a ``Source`` of it, and let daemon.py put it into ``Sources``.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from dhtvpn.discovery.directory import Directory
from dhtvpn.discovery.hints import HintDirectory
from dhtvpn.discovery.lan import LanDirectory
from dhtvpn.discovery.racing import RacingDirectory
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DhtVpnError

log = logging.getLogger(__name__)

LAN, KADEMLIA, MAINLINE, HINT, REMEMBERED = "lan", "kademlia", "mainline", "hint", "remembered"
"""By which a peer is said to be found. The last is no directory: peers known from an earlier run."""

REOPEN_S: Final = 60.0
"""A source that could not be opened is tried again this much later."""


OtherSurvey = Callable[[Collection[str]], Awaitable[Any]]
"""From this machine's own addresses to a nat.reflexive.Survey, of which this room knows nothing."""


class Condition(NamedTuple):
    """Whether a source is of use now, and a few words for a person."""

    works: bool
    detail: str


class Dht(Protocol):
    """What a node needs of its own DHT besides publishing and finding: discovery.kademlia."""

    read_only: bool

    async def start(self) -> int: ...

    async def bootstrap(self, endpoints: Iterable[Endpoint], /) -> int: ...

    def contacts(self) -> list[Endpoint]: ...

    async def ask_time(self, contacts: Iterable[Endpoint], /) -> list[float]: ...

    @property
    def size(self) -> int: ...

    @property
    def stored(self) -> int: ...


@dataclass(frozen=True)
class Source:
    """One source. ``start`` must not wait for the network."""

    name: str
    directory: Directory
    condition: Callable[[], Condition]
    start: Callable[[], Awaitable[Any]]
    close: Callable[[], Awaitable[None]]


class Sources:
    """All of them. ``dht`` and ``hints`` are among ``sources`` too where they are given."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        dht: Dht | None = None,
        hints: HintDirectory | None = None,
        survey: OtherSurvey | None = None,
        **options: Any,
    ) -> None:
        """``survey``: another way to learn our public endpoint, for where nobody answers STUN.
        ``options``: of RacingDirectory."""
        self._sources = list(sources)
        self.dht = dht
        self.hints = hints
        self.survey = survey
        self.race = RacingDirectory({source.name: source.directory for source in sources}, **options)

    async def start(self) -> None:
        """One that cannot start says so and is left to its condition; the others go on."""
        for source in self._sources:
            try:
                await source.start()
            except (DhtVpnError, OSError) as error:
                log.warning("source %s: %s", source.name, error)

    async def close(self) -> None:
        """End the race, then every source."""
        await self.race.close()
        for source in self._sources:
            await source.close()

    def conditions(self) -> dict[str, Condition]:
        """By name, in the order of the sources."""
        return {source.name: source.condition() for source in self._sources}

    def contacts(self) -> list[Endpoint]:
        """DHT nodes that answered, the fastest first; empty without a DHT."""
        return self.dht.contacts() if self.dht is not None else []


def kademlia_source(directory: Any) -> Source:
    """``directory``: a KademliaDirectory."""

    def condition() -> Condition:
        nodes = directory.size
        return Condition(nodes > 0, f"{nodes} node{'' if nodes == 1 else 's'} known")

    return Source(KADEMLIA, directory, condition, directory.start, directory.close)


def lan_source(directory: LanDirectory) -> Source:
    def condition() -> Condition:
        names = directory.interfaces
        return Condition(bool(names), ", ".join(names) or "no interface to speak on")

    return Source(LAN, directory, condition, directory.start, directory.close)


def hint_source(directory: HintDirectory) -> Source:
    def condition() -> Condition:
        if not directory.endpoints:
            return Condition(directory.heard > 0, "no --peer given")
        where = ", ".join(str(endpoint) for endpoint in directory.endpoints[:3])
        return Condition(directory.heard > 0, where if directory.heard else f"no answer from {where}")

    async def start() -> None:
        """It speaks once it is aimed."""

    return Source(HINT, directory, condition, start, directory.close)


def broken_source(name: str, why: str) -> Source:
    """In place of one that cannot be had on this machine."""

    async def nothing() -> None:
        """There is nothing to start or close."""

    return Source(name, _Nowhere(), lambda: Condition(False, why), nothing, nothing)


class _Nowhere:
    """Stores and finds nothing."""

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        return 0

    async def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        return
        yield b""  # what makes it a generator

    async def watch(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        await asyncio.Event().wait()
        yield b""


class LateDirectory:
    """A directory that takes its time to open: whoever asks it meanwhile waits, and nobody else does.

    ``open_directory`` may raise DhtVpnError; it is called again after REOPEN_S.
    """

    def __init__(self, name: str, open_directory: "Callable[[], Awaitable[Opened]]") -> None:
        self._name = name
        self._open_directory = open_directory
        self._opened: Opened | None = None
        self._there = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._refusal = ""

    async def start(self) -> None:
        """Begin to open it."""
        self._opening = asyncio.create_task(self._keep_opening(), name=f"open {self._name}")

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._opened is not None:
            await self._opened.close()

    def condition(self) -> Condition:
        if self._opened is not None:
            return self._opened.condition()
        return Condition(False, self._refusal or "being opened")

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        return await (await self._wait()).publish(dht_key, envelope)

    async def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        async with aclosing((await self._wait()).lookup(dht_key)) as envelopes:
            async for envelope in envelopes:
                yield envelope

    async def watch(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        async with aclosing((await self._wait()).watch(dht_key)) as envelopes:
            async for envelope in envelopes:
                yield envelope

    async def _wait(self) -> "Opened":
        await self._there.wait()
        assert self._opened is not None  # noqa: S101 - what the event says
        return self._opened

    async def _keep_opening(self) -> None:
        while self._opened is None:
            try:
                self._opened = await self._open_directory()
            except DhtVpnError as error:
                self._refusal = str(error)
                log.warning("source %s: %s", self._name, error)
                await asyncio.sleep(REOPEN_S)
        self._there.set()


class Opened(Directory, Protocol):
    """What :class:`LateDirectory` opens."""

    async def close(self) -> None: ...

    def condition(self) -> Condition: ...


def late_source(name: str, open_directory: Callable[[], Awaitable[Opened]]) -> Source:
    """A source that is opened in the background: mainline."""
    late = LateDirectory(name, open_directory)
    return Source(name, late, late.condition, late.start, late.close)
