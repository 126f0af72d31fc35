"""A Directory without storing nodes: members ask each other directly, in sealed datagrams (lan_wire.py).

Nobody stores for others. Who opens a watch or a lookup asks, with its own envelopes in the same datagram; who
publishes under that topic answers with its own. On the LAN the question goes to a multicast group and so does
the answer; for a hint it goes to the address that somebody gave us, and the answer comes back from there.

What cannot be opened with a key of the network, was heard before or has the wrong time is dropped without an
answer, so only members can make a node send anything; what they can make it send is limited by ``Manner``.
"""

import asyncio
import os
import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from dhtvpn.discovery.directory import Inspect
from dhtvpn.discovery.lan_wire import DATAGRAM_SIZE, NONCE_SIZE, Note, pack, seal, unseal
from dhtvpn.discovery.pace import Pace
from dhtvpn.discovery.reader import Reader
from dhtvpn.discovery.tasks import OwnedTasks
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import inspect as inspect_envelope
from dhtvpn.records.epochs import OVERLAP_S, epoch_at

MAX_OWN: Final = 128
"""Envelopes of this node that it answers with; a node has some ten."""

MAX_READERS: Final = 64
"""Watches and lookups at once; of more, the later ones hear only what comes without being asked for."""

MAX_NONCES: Final = 4096
"""Datagrams remembered so that a recording of them does nothing. Only members' datagrams get in."""

CLOCK_TOLERANCE_S: Final = OVERLAP_S + 60
"""How far the sender's clock may be from ours: as far as members' clocks may be apart, and a margin."""

OPENED_PER_S: Final = 200.0
OPENED_AT_ONCE: Final = 400.0
"""Datagrams that are tried with the keys: some 10 us each, so a flood costs 0.2% of a core."""

MAX_REPLIES: Final = 3
"""Datagrams in answer to one, where the answer goes to the one who asked: its address is not proven."""

REPEAT_S: Final = 60.0
"""The same envelope is announced again at most this often without being asked for."""


@dataclass(frozen=True)
class Manner:
    """When to speak. All in seconds, except the bursts and rates (datagrams, datagrams per second)."""

    room: str
    """The name of its counters in ``Drops``."""
    ask_after: tuple[float, float]
    """The first question waits a random time in this range, so that a network that comes back all at once
    does not speak all at once (RFC 6762 section 5.2)."""
    ask_again: tuple[float, ...]
    """Pauses between the questions after it."""
    ask_until_heard: bool
    """Go on asking at the last pause until anybody has answered."""
    answer_after: tuple[float, float]
    """RFC 6762 section 6: 20 to 120 ms where others may answer as well."""
    answer_pause: float
    """An envelope is not sent again before this, whoever asks (RFC 6762 section 6)."""
    lookup_s: float
    sent_per_s: float = 8.0
    sent_at_once: float = 256.0
    asked_per_s: float = 1.0
    asked_at_once: float = 10.0


@dataclass
class _Own:
    """What this node publishes in one slot of one topic."""

    dht_key: bytes
    envelope: bytes
    slot: bytes
    sequence: int
    expires: int
    sent_at: float = field(default=float("-inf"))


class Neighbours:
    """``carry`` sends a datagram to everyone and returns how many ways it went; ``reply``, where it is given,
    sends an answer to the one who asked instead."""

    def __init__(
        self,
        carry: Callable[[bytes], int],
        manner: Manner,
        *,
        epoch_key: Callable[[int], bytes],
        reply: Callable[[bytes, Endpoint], object] | None = None,
        inspect: Inspect = inspect_envelope,
        drops: Drops | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._carry, self._manner, self._epoch_key, self._reply = carry, manner, epoch_key, reply
        self._inspect, self._drops = inspect, drops or Drops()
        self._monotonic, self._unix_time = monotonic, unix_time
        self._random_bytes, self._uniform = random_bytes, uniform
        self._tasks = OwnedTasks()
        self._readers: list[Reader] = []
        self._own: dict[tuple[bytes, bytes], _Own] = {}
        self._keys: dict[int, bytes] = {}
        self._nonces: OrderedDict[bytes, None] = OrderedDict()
        self._due: set[tuple[bytes, bytes]] = set()
        self._answering: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        now = monotonic()
        self._opened = Pace(OPENED_PER_S, OPENED_AT_ONCE, now)
        self._sent = Pace(manner.sent_per_s, manner.sent_at_once, now)
        self._asked = Pace(manner.asked_per_s, manner.asked_at_once, now)
        self._closed = False
        self.heard = 0
        """Datagrams of other members."""

    # The Directory protocol

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        """Answer with ``envelope`` from now on, and announce it when it is new. Returns 1 when others can
        hear us, which is not to say that there are any; 0 when a newer one is published already, or there
        is no way to anybody. Raises DecodeError."""
        seen = self._inspect(envelope, dht_key, self._unix_time())
        place = (dht_key, seen.slot)
        held = self._own.get(place)
        if held is not None and held.sequence > seen.sequence:
            return 0
        if held is None or held.envelope != envelope:
            self._make_room()
            own = _Own(dht_key, envelope, seen.slot, seen.sequence, seen.expires)
            if held is not None:
                self._own[place] = own
                return self._tell([own])
            self._own[place] = own
            return self._ask([own])
        if self._monotonic() - held.sent_at >= REPEAT_S:
            return self._tell([held])
        return 1

    async def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """Ask, and collect answers for as long as the manner says; not at all where nobody can be asked."""
        reader = self._open(dht_key)
        wait_s = self._manner.lookup_s if self.can_ask else 0.0
        ending = asyncio.get_running_loop().call_later(wait_s, reader.finish)
        try:
            while True:
                for envelope in await reader.wait():
                    yield envelope
                if reader.finished:
                    return
        finally:
            ending.cancel()
            self._close_reader(reader)

    async def watch(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """Ask, and listen until it is closed or this directory is."""
        reader = self._open(dht_key)
        try:
            while True:
                for envelope in await reader.wait():
                    yield envelope
                if reader.finished:
                    return
        finally:
            self._close_reader(reader)

    async def close(self) -> None:
        """End every watch, task and timer. What carries the datagrams is not ours to close."""
        self._closed = True
        for reader in self._readers:
            reader.finish()
        if self._answering is not None:
            self._answering.cancel()
        await self._tasks.close()

    # Datagrams

    def handle_datagram(self, data: bytes, source: Endpoint) -> None:
        """One datagram from anybody. Never raises."""
        if self._closed:
            return
        try:
            note = self._read(data)
        except DecodeError as error:
            self._drops.count(self._manner.room, error.reason)
            return
        if note is None:
            return
        self.heard += 1
        for dht_key, envelope in note.envelopes:
            for reader in self._readers:
                if reader.dht_key == dht_key:
                    reader.offer(envelope, self._unix_time())
        if note.asked:
            self._answer(note, source)

    @property
    def can_ask(self) -> bool:
        """Whether there is anybody to ask, as far as we know."""
        return True

    def ask(self) -> None:
        """Ask for everything that is being watched, and say what we publish there; then again as the manner
        says. To be called when there may be other neighbours than before."""
        if self._closed:
            return
        if self._asking is not None:
            self._asking.cancel()
        self._asking = self._tasks.spawn(self._keep_asking())

    # Inside

    def _read(self, data: bytes) -> Note | None:
        """None for our own. Raises DecodeError with the reason why it is dropped."""
        if len(data) != DATAGRAM_SIZE:
            raise DecodeError("size")
        nonce = data[:NONCE_SIZE]
        if nonce in self._nonces:
            return None  # our own, or over another interface
        if not self._opened.take(self._monotonic()):
            raise DecodeError("too_many")
        now = self._unix_time()
        epochs = dict.fromkeys(epoch_at(now + skew) for skew in (0, -CLOCK_TOLERANCE_S, CLOCK_TOLERANCE_S))
        note = unseal(data, (self._key(epoch) for epoch in epochs))
        if abs(note.unix_time - now) > CLOCK_TOLERANCE_S:
            raise DecodeError("clock")
        self._remember(nonce)
        return note

    def _key(self, epoch: int) -> bytes:
        if epoch not in self._keys:
            self._keys = {known: key for known, key in self._keys.items() if abs(known - epoch) <= 1}
            self._keys[epoch] = self._epoch_key(epoch)
        return self._keys[epoch]

    def _remember(self, nonce: bytes) -> None:
        self._nonces[nonce] = None
        if len(self._nonces) > MAX_NONCES:
            self._nonces.popitem(last=False)

    def _answer(self, note: Note, source: Endpoint) -> None:
        known = dict(note.known)
        wanted = [
            own
            for own in self._live()
            if own.dht_key in note.asked and known.get(own.slot, -1) < own.sequence
        ]
        if not wanted:
            return
        if self._reply is not None:
            notes = pack(int(self._unix_time()), (), (), _entries(wanted))[:MAX_REPLIES]
            self._deliver(notes, partial(_one_way, self._reply, source))
            return
        self._due.update((own.dht_key, own.slot) for own in wanted)
        if self._answering is None:
            self._answer_in(self._uniform(*self._manner.answer_after))

    def _answer_in(self, delay_s: float) -> None:
        self._answering = asyncio.get_running_loop().call_later(delay_s, self._answer_now)

    def _answer_now(self) -> None:
        """Send what is due and has rested for long enough; come back for the rest."""
        self._answering = None
        rested = self._monotonic() - self._manner.answer_pause
        due = [own for place in self._due if (own := self._own.get(place)) is not None]
        ready = [own for own in due if own.sent_at <= rested]
        waiting = [own for own in due if own.sent_at > rested]
        self._due = {(own.dht_key, own.slot) for own in waiting}
        if ready:
            self._tell(ready)
        if waiting:
            self._answer_in(min(own.sent_at for own in waiting) - rested)

    async def _keep_asking(self) -> None:
        await asyncio.sleep(self._uniform(*self._manner.ask_after))
        before = self.heard
        self._ask(self._live())
        for pause_s in self._manner.ask_again:
            await asyncio.sleep(pause_s)
            if self._manner.ask_until_heard and self.heard > before:
                return
            self._ask(self._live())
        while self._manner.ask_until_heard:
            await asyncio.sleep(self._manner.ask_again[-1])
            if self.heard > before:
                return
            self._ask(self._live())

    def _ask(self, told: Iterable[_Own]) -> int:
        """One question for every topic that is read here, with ``told`` in it."""
        topics = list(dict.fromkeys(reader.dht_key for reader in self._readers if not reader.finished))
        if not topics or not self._asked.take(self._monotonic()):
            topics = []
        told = list(told)
        if not topics and not told:
            return 0
        notes = pack(int(self._unix_time()), topics, self._known(topics), _entries(told))
        return self._sent_to_all(notes, told)

    def _tell(self, told: list[_Own]) -> int:
        return self._sent_to_all(pack(int(self._unix_time()), (), (), _entries(told)), told)

    def _sent_to_all(self, notes: list[Note], told: list[_Own]) -> int:
        ways = self._deliver(notes, self._carry)
        if ways:
            for own in told:
                own.sent_at = self._monotonic()
        return min(ways, 1)

    def _deliver(self, notes: list[Note], carry: Callable[[bytes], int]) -> int:
        """The fewest ways that any of the datagrams went."""
        key = self._key(epoch_at(self._unix_time()))
        fewest = 1 << 30
        for note in notes:
            if not self._sent.take(self._monotonic()):
                self._drops.count(self._manner.room, "sent_too_many")
                return 0
            datagram = seal(note, key, self._random_bytes)
            self._remember(datagram[:NONCE_SIZE])
            fewest = min(fewest, carry(datagram))
        return fewest

    def _known(self, topics: list[bytes]) -> list[tuple[bytes, int]]:
        """(slot, sequence) of what every reader of its topic has."""
        known: list[tuple[bytes, int]] = []
        for topic in topics:
            held = [set(reader.newest.held()) for reader in self._readers if reader.dht_key == topic]
            known += sorted(set.intersection(*held))
        return known

    def _live(self) -> list[_Own]:
        now = self._unix_time()
        for place in [place for place, own in self._own.items() if own.expires <= now]:
            del self._own[place]
        return list(self._own.values())

    def _make_room(self) -> None:
        self._live()
        while len(self._own) >= MAX_OWN:
            del self._own[next(iter(self._own))]

    def _open(self, dht_key: bytes) -> Reader:
        reader = Reader(dht_key, self._inspect, self._drops)
        if self._closed:
            reader.finish()
        elif len(self._readers) < MAX_READERS:
            self._readers.append(reader)
            self.ask()
        else:
            self._drops.count(self._manner.room, "readers_full")
        return reader

    def _close_reader(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)


def _one_way(reply: Callable[[bytes, Endpoint], object], source: Endpoint, data: bytes) -> int:
    reply(data, source)
    return 1


def _entries(told: Iterable[_Own]) -> list[tuple[bytes, bytes]]:
    return [(own.dht_key, own.envelope) for own in told]
