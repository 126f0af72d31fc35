"""The asking side in terms of contacts: tokens are used and kept, the table learns from every answer."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from dhtvpn.discovery import lookup
from dhtvpn.discovery.contact import IPV4, IPV6, Contact, distance
from dhtvpn.discovery.newest import NewestEnvelopes
from dhtvpn.discovery.round_trips import RoundTrips
from dhtvpn.discovery.routing import K, RoutingTable
from dhtvpn.discovery.rpc import Answer, OnValue, Requests
from dhtvpn.discovery.shortlist import PATHS, Shortlist
from dhtvpn.discovery.silence import Silence
from dhtvpn.discovery.tasks import OwnedTasks
from dhtvpn.discovery.tokens import TokensHeld
from dhtvpn.discovery.wire import RENEWAL, Flags, Reply, Request, Rpc, Status
from dhtvpn.endpoint import Endpoint

log = logging.getLogger(__name__)

MAX_ROUNDS = 8
"""Requests to one node for one topic: 8 x 32 values, twice what a topic may hold."""

MAX_TOLD = 64
"""Contacts kept from the answers at the start."""

QUESTIONABLE_S = 900.0
"""A contact that answered within this time is good (BEP 5) and keeps its place in a full bucket without a
ping. With a ping for every newcomer, a lookup in a large network costs half as much again."""

NETWORK_SILENT_S = 10.0
"""When nobody at all has answered for this long, our own network is down: nobody is dropped for it."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What a lookup for envelopes wants filled."""

    newest: NewestEnvelopes
    on_value: OnValue


class Queries:
    """Typed requests and lookups over one routing table."""

    def __init__(
        self,
        requests: Requests,
        table: RoutingTable,
        tasks: OwnedTasks,
        *,
        flags: Callable[[], Flags],
        monotonic: Callable[[], float],
    ) -> None:
        self._requests, self._table, self._tasks = requests, table, tasks
        self._flags, self._monotonic = flags, monotonic
        self.silence = Silence()
        self.round_trips = RoundTrips()
        self.tokens = TokensHeld()
        self.told: list[Contact] = []
        self._heard_at = float("-inf")

    async def ask(
        self,
        endpoint: Endpoint,
        rpc: Rpc,
        target: bytes = b"",
        payload: bytes = b"",
        *,
        expected: Contact | None = None,
        on_value: OnValue | None = None,
        retransmit: bool = True,
    ) -> Answer | None:
        """One request. ``expected`` is the contact that is asked, when its id is known: another id in the
        answer counts as a failure of that contact."""
        now = self._monotonic()
        self.silence.asked(endpoint, now)
        token = self.tokens.get(endpoint, now)
        request = Request(rpc, self._table.own.towards(endpoint), token, self._flags(), target, payload)
        answer = await self._requests.ask(endpoint, request, on_value, retransmit=retransmit)
        now = self._monotonic()
        if (
            answer is not None and rpc is not Rpc.PUSH
        ):  # a watcher may be read-only, and its answer has no flags
            self._learn(Contact(answer.reply.node_id, endpoint), answer, now)
        if expected is not None and (answer is None or answer.reply.node_id != expected.node_id):
            self._failed(expected, now)
            return None
        return answer

    async def ping(self, contact: Contact) -> bool:
        """Whether it answers under its id."""
        return await self.ask(contact.endpoint, Rpc.PING, expected=contact) is not None

    async def find_node(self, contact: Contact, target: bytes) -> list[Contact] | None:
        """Contacts close to ``target`` that ``contact`` knows, or None when it does not answer."""
        answer = await self.ask(contact.endpoint, Rpc.FIND_NODE, target, expected=contact)
        return self._worth_asking(answer.reply) if answer is not None else None

    async def find(self, contact: Contact, topic: Topic) -> list[Contact] | None:
        """The same for a dht_key; values go to the topic, in as many rounds as it takes."""
        told: list[Contact] | None = None
        for _ in range(MAX_ROUNDS):
            key, have = topic.newest.dht_key, topic.newest.have()
            answer = await self.ask(
                contact.endpoint, Rpc.FIND, key, have, expected=contact, on_value=topic.on_value
            )
            if answer is None:
                return told
            told = self._worth_asking(answer.reply) if told is None else told
            if not _has_more(answer):
                break
        return told

    async def store(self, contact: Contact, dht_key: bytes, envelope: bytes) -> bool:
        """True when it confirmed that it holds the envelope."""
        answer = await self._with_fresh_token(contact, Rpc.STORE, dht_key, envelope, None)
        if answer is not None and answer.reply.status is not Status.OK:
            log.debug("%s did not store: %s", contact.endpoint, answer.reply.status.name)
        return answer is not None and answer.reply.status is Status.OK

    async def watch(self, contact: Contact, topic: Topic, *, renew: bool = False) -> int:
        """Subscribe, or ``renew`` a lease that is thought to last; returns the lease in seconds, 0 when
        there is none. When it has ended meanwhile, what we lack is asked for."""
        key, have = topic.newest.dht_key, RENEWAL if renew else topic.newest.have()
        answer = await self._with_fresh_token(contact, Rpc.WATCH, key, have, topic.on_value)
        if answer is None or answer.reply.status is not Status.OK:
            return 0
        if _has_more(answer):
            self._tasks.spawn(self.find(contact, topic))
        return answer.reply.lease_s

    async def push(self, watcher: Endpoint, dht_key: bytes, envelope: bytes) -> bool | None:
        """Whether the watcher wants more of the topic; None without an answer."""
        answer = await self.ask(watcher, Rpc.PUSH, dht_key, envelope)
        return None if answer is None else answer.reply.status is Status.OK

    async def closest(
        self,
        target: bytes,
        topic: Topic | None = None,
        progress: Callable[[Shortlist], None] = lambda _: None,
        *,
        paths: int = PATHS,
    ) -> list[Contact]:
        """A lookup: the closest live nodes to ``target``; with a topic, its values are collected.
        ``progress`` sees the shortlist after every answer."""

        def start_query(contact: Contact) -> "asyncio.Task[list[Contact] | None]":
            query = self.find_node(contact, target) if topic is None else self.find(contact, topic)
            return self._tasks.spawn(query)

        shortlist = Shortlist(target, paths=paths)
        return await lookup.run(shortlist, self._start(target), start_query, self._soft_timeout_s, progress)

    def proven_close_to(self, target: bytes, count: int) -> list[Contact]:
        """Of the ``count`` closest contacts that we know of without asking anybody, those that have given us
        a token."""
        by_distance = sorted(self._start(target), key=lambda contact: distance(contact.node_id, target))
        by_node: dict[bytes, Contact] = {}
        for contact in by_distance:
            by_node.setdefault(contact.node_id, contact)  # one endpoint each
        now = self._monotonic()
        return [c for c in list(by_node.values())[:count] if self.tokens.get(c.endpoint, now)]

    def _start(self, target: bytes) -> list[Contact]:
        """Where a lookup begins."""
        start = [c for family in (IPV4, IPV6) for c in self._table.find_neighbors(target, K, family)]
        return start if len(start) >= K else list(dict.fromkeys([*start, *self.told]))

    def remember_told(self, answers: Iterable[Answer]) -> None:
        """Keep what the nodes that we started from have told, as further start points of lookups while the
        table is nearly empty: those nodes need not be asked twice."""
        told = (contact for answer in answers for contact in self._worth_asking(answer.reply))
        self.told = list(islice(dict.fromkeys(told), MAX_TOLD))

    async def _with_fresh_token(
        self, contact: Contact, rpc: Rpc, target: bytes, payload: bytes, on_value: OnValue | None
    ) -> Answer | None:
        """A refused token came with a new one: ask once more."""
        answer = await self.ask(contact.endpoint, rpc, target, payload, expected=contact, on_value=on_value)
        if answer is not None and answer.reply.status is Status.BAD_TOKEN:
            return await self.ask(contact.endpoint, rpc, target, payload, expected=contact, on_value=on_value)
        return answer

    def _learn(self, contact: Contact, answer: Answer, now: float) -> None:
        self._heard_at = now
        self.silence.broken(contact.endpoint)
        self.round_trips.heard(contact.endpoint, answer.rtt_s, now)
        self.tokens.keep(contact.endpoint, answer.reply.token, now)
        doubtful = self._table.heard(contact, now, answer.rtt_s)
        if doubtful is not None and self._questionable(doubtful, contact, now):
            self._tasks.spawn(self._settle(doubtful, contact, answer.rtt_s))

    def _questionable(self, doubtful: Contact, newcomer: Contact, now: float) -> bool:
        """Whether it is worth a ping: it stands at another address, or was not heard of for long."""
        if self.silence.holds(doubtful.endpoint, now):
            return False
        standing = self._table.get(doubtful.node_id, doubtful.family)
        heard_at = now if standing is None else standing.heard_at
        return doubtful.node_id == newcomer.node_id or now - heard_at >= QUESTIONABLE_S

    async def _settle(self, doubtful: Contact, newcomer: Contact, rtt_s: float) -> None:
        """The one that is in the table stays if it answers; else the newcomer takes its place."""
        if not await self.ping(doubtful):
            self._table.heard(newcomer, self._monotonic(), rtt_s)

    def _failed(self, contact: Contact, now: float) -> None:
        if self._table.failed(contact, may_drop=now - self._heard_at < NETWORK_SILENT_S):
            log.debug("dropped %s: no answer", contact.endpoint)

    def _worth_asking(self, reply: Reply) -> list[Contact]:
        now = self._monotonic()
        return [
            c for c in reply.contacts if self._table.reachable(c) and not self.silence.holds(c.endpoint, now)
        ]

    def _soft_timeout_s(self, contact: Contact) -> float:
        return self.round_trips.timeout_s(contact.endpoint, self._monotonic())


def _has_more(answer: Answer) -> bool:
    """Values that were lost on the way, or kept back until our address was proven."""
    return answer.reply.more > 0 or answer.values_received < answer.reply.values
