"""The Kademlia directory: the parts of this package put together on a port that belongs to someone else.

A datagram comes in at ``handle_datagram`` and goes, by kind, to ``Service`` (requests) or ``Requests``
(replies, values). ``publish``, ``lookup`` and ``watch`` are lookups by ``Queries``.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

from dhtvpn.discovery.buckets import DEFAULT_RULES, AddressRules
from dhtvpn.discovery.caps import DEFAULT_CAPS, Caps
from dhtvpn.discovery.contact import BOTH_FAMILIES, IPV4, Contact, distance, family_of
from dhtvpn.discovery.directory import Inspect
from dhtvpn.discovery.disjoint_path import REPLICAS
from dhtvpn.discovery.limits import AnswerLimit
from dhtvpn.discovery.meetings import Meetings
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.polling import Polling
from dhtvpn.discovery.publishing import EARLY, Publication
from dhtvpn.discovery.pushing import Pushing
from dhtvpn.discovery.queries import Queries
from dhtvpn.discovery.reader import Reader, Watches
from dhtvpn.discovery.routing import RoutingTable
from dhtvpn.discovery.rpc import Answer, Requests, Send
from dhtvpn.discovery.service import Hooks, Service
from dhtvpn.discovery.storage import Outcome, Storage
from dhtvpn.discovery.subscriptions import Subscriptions
from dhtvpn.discovery.tasks import OwnedTasks, first_and_soon_after
from dhtvpn.discovery.tokens import TokenIssuer
from dhtvpn.discovery.upkeep import Upkeep
from dhtvpn.discovery.watching import POLL_S, RENEW_S, SPARSE_POLL_S, Watching
from dhtvpn.discovery.wire import (
    KIND_REPLY,
    KIND_REQUEST,
    NO_FLAGS,
    Flags,
    Rpc,
    split,
)
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import inspect as inspect_envelope

log = logging.getLogger(__name__)

BOOTSTRAP_WAVE = 16
"""Endpoints asked at once; the next wave follows after the soft timeout unless enough have answered."""

MAX_CLOCKS = 5
"""Nodes whose clocks are asked for at once: the median stands against two that lie."""


class KademliaDirectory:
    """One node of the network, storing for others too. ``send`` routes a datagram by address family.

    ``families``: those the port has. ``own``: our ids in these families; random ones when None. They change
    when enough others agree on another address of ours; the owner keeps them. ``rules``: for the table.
    ``subscribe`` False: watches ask for changes instead of having them pushed. ``read_only`` (BEP 43):
    others shall not put us into their tables, because strangers cannot reach us.
    """

    def __init__(
        self,
        send: Send,
        *,
        own: OwnIds | None = None,
        inspect: Inspect = inspect_envelope,
        drops: Drops | None = None,
        families: frozenset[int] = BOTH_FAMILIES,
        read_only: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        poll_s: float = POLL_S,
        renew_s: float = RENEW_S,
        caps: Caps = DEFAULT_CAPS,
        subscribe: bool = True,
        rules: AddressRules = DEFAULT_RULES,
    ) -> None:
        self.own = own or OwnIds(families, random_bytes)
        self.read_only = read_only
        self._port_send, self._drops, self._inspect = send, drops or Drops(), inspect
        self._families = families
        self._monotonic, self._unix_time, self._random_bytes = monotonic, unix_time, random_bytes
        self._published = False
        self._tasks = OwnedTasks()
        self._table = RoutingTable(self.own, monotonic(), rules=rules)
        self._storage = Storage(inspect, self._drops, max_bytes=caps.stored_octets, max_floors=caps.floors)
        self._subscriptions = Subscriptions(max_total=caps.subscriptions)
        self._tokens = TokenIssuer(random_bytes, monotonic())
        self._limit = AnswerLimit(random_bytes, monotonic(), total_per_s=caps.answers_per_s)
        self._watches = Watches(self._drops)
        self._requests = Requests(self._send, self._drops, random_bytes, seen_as=self._seen_as)
        self._queries = Queries(
            self._requests, self._table, self._tasks, flags=self._flags, monotonic=monotonic
        )
        self._watching = Watching(
            self._queries,
            self._storage,
            self._tasks,
            monotonic=monotonic,
            unix_time=unix_time,
            poll_s=poll_s,
            renew_s=renew_s,
        )
        self._pushing = Pushing(
            self._queries, self._subscriptions, self._tasks, self._drops, monotonic=monotonic
        )
        self._meetings = Meetings(self._queries, self._table, self._tasks, monotonic=monotonic)
        self._service = Service(
            self._send,
            self._drops,
            table=self._table,
            storage=self._storage,
            subscriptions=self._subscriptions,
            watches=self._watches,
            tokens=self._tokens,
            limit=self._limit,
            hooks=Hooks(met=self._meetings.met, stored=self._stored),
            monotonic=monotonic,
            unix_time=unix_time,
        )
        polling = Polling(
            self._queries,
            self._tasks,
            self._watching.look_up,
            monotonic=monotonic,
            unix_time=unix_time,
            poll_s=min(poll_s, SPARSE_POLL_S),
        )
        self._keep = self._watching.keep if subscribe else polling.keep
        self._upkeep = Upkeep(
            self._queries,
            self._table,
            self._tasks,
            expire=self._expire,
            monotonic=monotonic,
            random_bytes=random_bytes,
        )
        self._maintenance: asyncio.Task[None] | None = None
        self._closed = self._filled = False

    # Datagrams

    def handle_datagram(self, data: bytes, source: Endpoint) -> None:
        """One datagram, without the port's prefix octet. Never raises on a peer's bytes."""
        if self._closed or family_of(source) not in self._families:
            return
        try:
            kind, message_id, body = split(data)
        except DecodeError as error:
            self._drops.count("dht", error.reason)
            return
        if kind == KIND_REQUEST:
            self._service.handle_request(message_id, body, len(data), source)
        elif kind == KIND_REPLY:
            self._requests.handle_reply(message_id, body, source)
        else:
            self._requests.handle_value(message_id, body, source)

    # Joining and leaving

    async def start(self, contacts: Iterable[Endpoint] = ()) -> int:
        """Start the upkeep and bootstrap from remembered contacts; returns how many answered."""
        if self._maintenance is None:
            self._maintenance = self._tasks.spawn(self._upkeep.run())
        return await self.bootstrap(contacts)

    async def bootstrap(self, endpoints: Iterable[Endpoint]) -> int:
        """Ask endpoints of unknown ids, in waves; returns how many answered so far, one round trip after
        the first did. Then a lookup of our own id fills the table in the background.

        They are asked for the surroundings of a watched topic, where there is one: the lookup that follows
        then begins a round trip further on."""
        target = self._watches.any_key() or self.node_id
        usable = [e for e in dict.fromkeys(endpoints) if family_of(e) in self._families]
        running: list[asyncio.Task[Answer | None]] = []
        for start in range(0, len(usable), BOOTSTRAP_WAVE):
            wave = [
                self._tasks.spawn(self._queries.ask(endpoint, Rpc.FIND_NODE, target))
                for endpoint in usable[start : start + BOOTSTRAP_WAVE]
            ]
            running += wave
            await first_and_soon_after(wave, self._queries.round_trips.stranger_timeout_s)
            if _answered(running) >= REPLICAS:
                break
        while not _answered(running) and (waiting := [task for task in running if not task.done()]):
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        answered = _answered(running)
        self._queries.remember_told(_answers(running))
        if answered:
            if not self._filled:
                self._filled = True
                self._tasks.spawn(self._upkeep.fill(usable[len(running) :]))
            self._find_our_neighbours()
            self._watches.wake()
        return answered

    async def close(self) -> None:
        """End every task and every watch. The port is not ours to close."""
        self._closed = True
        self._watches.finish()
        await self._tasks.close()

    # The Directory protocol

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        """Store at the closest live nodes; returns how many of them confirmed. It is stored here too when
        we are among the closest; that copy is not counted, for nobody may be able to reach it.

        Raises DecodeError when the envelope does not pass its own check.
        """
        self._inspect(envelope, dht_key, self._unix_time())
        publication = Publication(lambda c: self._tasks.spawn(self._queries.store(c, dht_key, envelope)))
        if not self._published:  # somebody waits for us; later on it would cost stores for nothing
            publication.begin(self._queries.proven_close_to(dht_key, EARLY))
        closest = await self._queries.closest(dht_key, progress=publication.progress)
        if self._among_closest(dht_key, closest):
            outcome = self._storage.put(dht_key, envelope, None, self._unix_time())
            if outcome is Outcome.NEW:
                self._stored(dht_key, envelope, None)
        confirmed = await publication.finish(closest)
        self._published = self._published or confirmed > 0
        log.debug("published at %d of %d nodes", confirmed, len(closest))
        return confirmed

    async def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """Verified envelopes as they come; with no contacts, what is stored here."""
        reader = Reader(dht_key, self._inspect, self._drops)
        task = self._tasks.spawn(self._look_up_once(reader))
        try:
            while True:
                for envelope in await reader.wait():
                    yield envelope
                if reader.finished:
                    return
        finally:
            task.cancel()

    async def watch(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """Lookups and pushes, until it is closed or the directory is."""
        reader = Reader(dht_key, self._inspect, self._drops)
        self._watches.open(reader)
        task = self._tasks.spawn(self._keep(reader))
        try:
            while True:
                for envelope in await reader.wait():
                    yield envelope
                if reader.finished:
                    return
        finally:
            self._watches.close(reader)
            task.cancel()

    async def ask_time(self, contacts: Iterable[Endpoint]) -> list[float]:
        """How far the clocks of the first MAX_CLOCKS of ``contacts`` are ahead of ours, in seconds, negative
        when behind; one entry for each that answers. Not corrected for the round trip.

        Strangers may lie: good for a warning to a person, not for setting a clock.
        """
        asked = list(dict.fromkeys(contacts))[:MAX_CLOCKS]
        offsets = await asyncio.gather(*(self._tasks.spawn(self._clock_offset(e)) for e in asked))
        return [offset for offset in offsets if offset is not None]

    # What it knows, for the owner

    def contacts(self) -> list[Endpoint]:
        """Endpoints of nodes that answered us, the fastest first: for the disk and for STUN."""
        return [standing.contact.endpoint for standing in self._table.good()]

    @property
    def size(self) -> int:
        """Nodes in the routing table that answered when last asked."""
        return len({standing.contact.node_id for standing in self._table.good()})

    @property
    def node_id(self) -> bytes:
        """Our id in the first of our families."""
        return self.own.all()[0]

    def restore_ids(self, state: Mapping[str, Mapping[str, str | None]]) -> None:
        """Take up ``own.state()`` of an earlier run, before the first datagram.
        Raises ValueError, TypeError or KeyError; nothing has changed then."""
        for family in self.own.restore(state):
            self._id_changed(family)

    @property
    def tokens(self) -> TokenIssuer:
        """Whose secrets the owner may keep on disk."""
        return self._tokens

    @property
    def storage(self) -> Storage:
        """Whose floors the owner may keep on disk, and whose counts it may show."""
        return self._storage

    @property
    def subscriptions(self) -> Subscriptions:
        """Who watches topics here."""
        return self._subscriptions

    def slow_down(self) -> None:
        """The port cannot read as fast as datagrams come: answer fewer requests for a while."""
        self._limit.slow_down(self._monotonic())

    @property
    def busy(self) -> bool:
        """Whether more is asked than is answered."""
        return self._limit.busy

    @property
    def stored(self) -> int:
        """Envelopes that this node holds for others and itself."""
        return len(self._storage)

    # Inside

    def _send(self, datagram: bytes, endpoint: Endpoint) -> None:
        try:
            self._port_send(datagram, endpoint)
        except OSError:  # no route, network down: like a lost datagram
            self._drops.count("dht", "send_failed")

    def _flags(self) -> Flags:
        flags = Flags.READ_ONLY if self.read_only else NO_FLAGS
        for family in self._families:
            flags |= Flags.WANT_IPV4 if family == IPV4 else Flags.WANT_IPV6
        return flags

    def _among_closest(self, dht_key: bytes, closest: list[Contact]) -> bool:
        if len(closest) < REPLICAS:
            return True
        farthest = distance(closest[-1].node_id, dht_key)
        return any(distance(own_id, dht_key) < farthest for own_id in self.own.all())

    async def _clock_offset(self, endpoint: Endpoint) -> float | None:
        answer = await self._queries.ask(endpoint, Rpc.PING)
        return None if answer is None else answer.reply.unix_time - self._unix_time()

    def _stored(self, dht_key: bytes, envelope: bytes, source: Endpoint | None) -> None:
        """A topic changed here: tell the watches of this process, and push to those of others."""
        self._watches.stored_here(dht_key, envelope, self._unix_time())
        self._pushing.changed(dht_key, envelope, source)

    async def _look_up_once(self, reader: Reader) -> None:
        try:
            await self._watching.look_up(reader)
        finally:
            reader.finish()

    def _expire(self) -> None:
        self._storage.expire(self._unix_time())
        self._subscriptions.expire(self._monotonic())

    def _seen_as(self, seen: Endpoint, by: Endpoint) -> None:
        """Somebody tells us our address: it may be another one than we thought, and with it our id."""
        family = self.own.seen_as(seen, by, self._monotonic())
        if family is not None:
            log.info("our node id in IPv%d is another one: others agree on our address", family)
            self._id_changed(family)

    def _id_changed(self, family: int) -> None:
        """The contacts stay, in other buckets; those around the new id get to know us. What is stored here
        stays too: publishers find those that are closer now when they publish next."""
        self._table.own_id_changed(family, self._monotonic())
        if self._maintenance is not None:
            self._find_our_neighbours()

    def _find_our_neighbours(self) -> None:
        for own_id in self.own.all():
            self._tasks.spawn(self._queries.closest(own_id))


def _answers(tasks: "list[asyncio.Task[Answer | None]]") -> list[Answer]:
    results = (task.result() for task in tasks if task.done() and not task.cancelled())
    return [answer for answer in results if answer is not None]


def _answered(tasks: "list[asyncio.Task[Answer | None]]") -> int:
    return len(_answers(tasks))
