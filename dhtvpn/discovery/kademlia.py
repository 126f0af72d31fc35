"""The Kademlia directory: the parts of this package put together on a port that belongs to someone else.

A datagram comes in at ``handle_datagram`` and goes, by kind, to ``Service`` (requests) or ``Requests``
(replies, values). ``publish``, ``lookup`` and ``watch`` are lookups by ``Queries``.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable

from dhtvpn.discovery.allowance import Allowance
from dhtvpn.discovery.caps import DEFAULT_CAPS, Caps
from dhtvpn.discovery.contact import BOTH_FAMILIES, IPV4, Contact, distance, family_of
from dhtvpn.discovery.directory import KEY_LENGTH, Inspect
from dhtvpn.discovery.disjoint_path import REPLICAS
from dhtvpn.discovery.limits import AnswerLimit
from dhtvpn.discovery.polling import Polling
from dhtvpn.discovery.publishing import Publication
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
from dhtvpn.discovery.watching import POLL_S, RENEW_S, SPARSE_POLL_S, Watching
from dhtvpn.discovery.wire import (
    KIND_REPLY,
    KIND_REQUEST,
    MESSAGE_ID_LENGTH,
    NO_FLAGS,
    Flags,
    Request,
    Rpc,
    encode_request,
    split,
)
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import inspect as inspect_envelope

log = logging.getLogger(__name__)

MAINTENANCE_S = 10.0
PING_AFTER_S = 900.0
"""A contact not heard of for this long is pinged, PINGS_PER_ROUND at a time: 10 octets per second at most.
Lookups do without: a dead contact costs them one soft timeout, and is dropped for it."""

PINGS_PER_ROUND = 1
BOOTSTRAP_WAVE = 16
"""Endpoints asked at once; the next wave follows after the soft timeout unless enough have answered."""

MAX_MEETINGS = 32
"""Strangers that are being verified at once; each costs one ping."""

PING_LENGTH = len(encode_request(bytes(MESSAGE_ID_LENGTH), Request(Rpc.PING, bytes(KEY_LENGTH), bytes(8))))
"""Octets of that ping, with a token."""

MAX_CLOCKS = 5
"""Nodes whose clocks are asked for at once: the median stands against two that lie."""


class KademliaDirectory:
    """One node of the network, storing for others too. ``send`` routes a datagram by address family.

    ``node_id``: 20 octets; random when None; the owner keeps it. ``families``: those the port has.
    ``subscribe`` False: watches ask for changes instead of having them pushed.
    ``read_only`` (BEP 43): others shall not put us into their tables, because strangers cannot reach us.
    """

    def __init__(
        self,
        send: Send,
        *,
        node_id: bytes | None = None,
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
    ) -> None:
        self.node_id = node_id or random_bytes(KEY_LENGTH)
        if len(self.node_id) != KEY_LENGTH:
            raise ValueError(f"a node id has {KEY_LENGTH} octets, not {len(self.node_id)}")
        self.read_only = read_only
        self._port_send, self._drops, self._inspect = send, drops or Drops(), inspect
        self._families = families
        self._monotonic, self._unix_time, self._random_bytes = monotonic, unix_time, random_bytes
        self._tasks = OwnedTasks()
        self._table = RoutingTable(self.node_id, families, monotonic())
        self._storage = Storage(inspect, self._drops, max_bytes=caps.stored_octets, max_floors=caps.floors)
        self._subscriptions = Subscriptions(max_total=caps.subscriptions)
        self._tokens = TokenIssuer(random_bytes, monotonic())
        self._limit = AnswerLimit(random_bytes, monotonic(), total_per_s=caps.answers_per_s)
        self._watches = Watches(self._drops)
        self._requests = Requests(self._send, self._drops, random_bytes)
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
        self._service = Service(
            self._send,
            self._drops,
            table=self._table,
            storage=self._storage,
            subscriptions=self._subscriptions,
            watches=self._watches,
            tokens=self._tokens,
            limit=self._limit,
            hooks=Hooks(met=self._met, stored=self._stored),
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
        self._meetings: set[Endpoint] = set()
        self._maintenance: asyncio.Task[None] | None = None
        self._closed = False

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
            self._maintenance = self._tasks.spawn(self._maintain())
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
            self._tasks.spawn(self._queries.closest(self.node_id))
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
        closest = await self._queries.closest(dht_key, progress=publication.progress)
        if self._among_closest(dht_key, closest):
            outcome = self._storage.put(dht_key, envelope, None, self._unix_time())
            if outcome is Outcome.NEW:
                self._stored(dht_key, envelope, None)
        confirmed = await publication.finish(closest)
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
        return distance(self.node_id, dht_key) < distance(closest[-1].node_id, dht_key)

    def _met(self, request: Request, source: Endpoint, allowance: Allowance) -> None:
        """A stranger asked us something: verify it by one ping of ours before it enters the table. Those who
        may be forged take half of the places at most."""
        if allowance.proven:
            self._queries.silence.broken(source)
        stranger = Contact(request.node_id, source)
        if request.flags & Flags.READ_ONLY or not self._table.wants(stranger):
            return
        if source in self._meetings or self._queries.silence.holds(source, self._monotonic()):
            return
        places = MAX_MEETINGS if allowance.proven else MAX_MEETINGS // 2
        if len(self._meetings) < places and allowance.take(PING_LENGTH):
            self._meetings.add(source)
            self._tasks.spawn(self._meet(source))

    async def _meet(self, source: Endpoint) -> None:
        try:
            await self._queries.ask(source, Rpc.PING, retransmit=False)
        finally:
            self._meetings.discard(source)

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

    async def _maintain(self) -> None:
        """Forget what has ended, ping the quiet, look up buckets that nobody touched."""
        while True:
            await asyncio.sleep(MAINTENANCE_S)
            now = self._monotonic()
            self._storage.expire(self._unix_time())
            self._subscriptions.expire(now)
            for contact in self._to_ping(now):
                self._tasks.spawn(self._queries.ping(contact))
            for target in self._table.refresh_targets(now, self._random_bytes)[:1]:
                await self._queries.closest(target, paths=1)  # to be misled here hides no record

    def _to_ping(self, now: float) -> list[Contact]:
        """The quiet. With one that has failed before goes a witness that our own network is up: where
        nobody answers nobody is dropped, and at rest nobody else may be asked for a long time."""
        quiet = self._table.longest_unheard(now, PING_AFTER_S, PINGS_PER_ROUND)
        standings = (self._table.get(contact.node_id, contact.family) for contact in quiet)
        if any(standing is not None and standing.failures for standing in standings):
            quiet += [standing.contact for standing in self._table.good()[:1]]
        return quiet


def _answers(tasks: "list[asyncio.Task[Answer | None]]") -> list[Answer]:
    results = (task.result() for task in tasks if task.done() and not task.cancelled())
    return [answer for answer in results if answer is not None]


def _answered(tasks: "list[asyncio.Task[Answer | None]]") -> int:
    return len(_answers(tasks))
