"""The routing table: k-buckets (Kademlia paper, sections 2.2 and 2.4), one set per address family (BEP 32).

Only contacts that answered a query of ours are in it. ``Node`` and ``KBucket`` are kademlia's; splitting,
finding, failures and addresses are ours: its traverser stops early, and it never refreshes an address.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kademlia.node import Node
from kademlia.routing import KBucket

from dhtvpn.discovery.contact import Contact, distance
from dhtvpn.endpoint import Endpoint

K = 20
"""Contacts per bucket; the paper's k."""

MAX_FAILURES = 2
"""Queries in a row without an answer after which a contact is dropped."""

REFRESH_AFTER_S = 3600.0
"""A bucket without a change for an hour is looked up (Kademlia paper, section 2.3)."""

MIN_RTT_S, RTT_WEIGHT = 0.001, 0.25
ID_BITS = 160


@dataclass(slots=True)
class Standing:
    """What we know of a contact in the table. Times are monotonic seconds."""

    contact: Contact
    heard_at: float
    rtt_s: float
    failures: int = 0


class FamilyTable:
    """The buckets of one address family."""

    def __init__(self, own_id: bytes, k: int, now: float) -> None:
        self._own = int.from_bytes(own_id, "big")
        self._k = k
        self._buckets = [self._bucket(0, (1 << ID_BITS) - 1, now)]
        self._standing: dict[bytes, Standing] = {}

    def get(self, node_id: bytes) -> Standing | None:
        return self._standing.get(node_id)

    def wants(self, node_id: bytes) -> bool:
        """Whether a new contact with this id would be kept, if only as a replacement."""
        bucket = self._bucket_for(node_id)
        free = len(bucket.replacement_nodes) < bucket.max_replacement_nodes
        return node_id not in self._standing and (len(bucket) < self._k or self._splits(bucket) or free)

    def add(self, contact: Contact, now: float, rtt_s: float) -> None:
        """Take in a contact that answered: into its bucket, splitting it where our own id is, or among
        the bucket's replacements."""
        long_id = int.from_bytes(contact.node_id, "big")
        node = Node(contact.node_id, contact.endpoint.host, contact.endpoint.port)
        self._standing[contact.node_id] = Standing(contact, now, max(rtt_s, MIN_RTT_S))
        while not (bucket := self._bucket_for(contact.node_id)).add_node(node):
            if not self._splits(bucket):
                break
            self._split(bucket)
        if long_id != self._own:
            bucket.last_updated = now
        self._forget_pushed_out(bucket)

    def remove(self, node_id: bytes) -> None:
        standing = self._standing.pop(node_id, None)
        if standing is None:
            return
        endpoint = standing.contact.endpoint
        bucket = self._bucket_for(node_id)
        bucket.replacement_nodes.pop(node_id, None)
        bucket.remove_node(Node(node_id, endpoint.host, endpoint.port))

    def in_buckets(self) -> list[Standing]:
        """Every contact that is not merely a replacement."""
        return [self._standing[node_id] for bucket in self._buckets for node_id in bucket.nodes]

    def oldest_in_full_bucket(self, node_id: bytes) -> Contact | None:
        """Whom to ping when ``node_id`` only became a replacement: the least recently seen (2.2)."""
        bucket = self._bucket_for(node_id)
        if node_id in bucket.nodes or not len(bucket):
            return None
        return self._standing[next(iter(bucket.nodes))].contact

    def stale_ranges(self, now: float) -> list[tuple[int, int]]:
        """Id ranges of buckets without a change for REFRESH_AFTER_S; they count as refreshed from now."""
        stale = [b for b in self._buckets if now - b.last_updated >= REFRESH_AFTER_S]
        for bucket in stale:
            bucket.last_updated = now
        return [bucket.range for bucket in stale]

    def __len__(self) -> int:
        return len(self._standing)

    def _bucket(self, low: int, high: int, now: float) -> KBucket:
        bucket = KBucket(low, high, self._k)
        bucket.last_updated = now
        return bucket

    def _bucket_for(self, node_id: bytes) -> KBucket:
        long_id = int.from_bytes(node_id, "big")
        return next(b for b in self._buckets if b.range[0] <= long_id <= b.range[1])

    def _splits(self, bucket: KBucket) -> bool:
        return bool(bucket.range[0] <= self._own <= bucket.range[1] and bucket.range[1] > bucket.range[0])

    def _split(self, bucket: KBucket) -> None:
        halves = bucket.split()
        for half in halves:
            half.last_updated = bucket.last_updated
        index = self._buckets.index(bucket)
        self._buckets[index : index + 1] = halves

    def _forget_pushed_out(self, bucket: KBucket) -> None:
        """The oldest replacement leaves a full replacement list silently: drop its standing too."""
        low, high = bucket.range
        if len(bucket.replacement_nodes) < bucket.max_replacement_nodes:
            return
        for node_id in list(self._standing):
            inside = low <= int.from_bytes(node_id, "big") <= high
            if inside and node_id not in bucket.nodes and node_id not in bucket.replacement_nodes:
                del self._standing[node_id]


class RoutingTable:
    """One FamilyTable per family that this node can reach; a node may be in both."""

    def __init__(self, own_id: bytes, families: frozenset[int], now: float, k: int = K) -> None:
        self.own_id = own_id
        self.families = families
        self._tables = {family: FamilyTable(own_id, k, now) for family in sorted(families)}

    def get(self, node_id: bytes, family: int) -> Standing | None:
        return self._tables[family].get(node_id) if family in self._tables else None

    def reachable(self, contact: Contact) -> bool:
        """Whether we speak its family and it is not ourselves."""
        return contact.family in self._tables and contact.node_id != self.own_id

    def wants(self, contact: Contact) -> bool:
        """Whether it is worth a ping: reachable, unknown, and there would be a place for it."""
        return self.reachable(contact) and self._tables[contact.family].wants(contact.node_id)

    def heard(self, contact: Contact, now: float, rtt_s: float) -> Contact | None:
        """``contact`` answered a query of ours. Returns a contact that should be pinged to settle things:
        the same id at another endpoint, or the least recently seen of a full bucket."""
        if not self.reachable(contact):
            return None
        table = self._tables[contact.family]
        standing = table.get(contact.node_id)
        if standing is None:
            table.add(contact, now, rtt_s)
            return table.oldest_in_full_bucket(contact.node_id)
        if standing.contact.endpoint != contact.endpoint:
            if standing.failures == 0:
                return standing.contact
            table.remove(contact.node_id)
            table.add(contact, now, rtt_s)
            return None
        standing.rtt_s += RTT_WEIGHT * (max(rtt_s, MIN_RTT_S) - standing.rtt_s)
        standing.heard_at, standing.failures = now, 0
        return None

    def failed(self, contact: Contact, *, may_drop: bool = True) -> bool:
        """A query got no answer. True when the contact has been dropped for it."""
        standing = self.get(contact.node_id, contact.family)
        if standing is None or standing.contact != contact:
            return False
        standing.failures += 1
        if standing.failures < MAX_FAILURES or not may_drop:
            return False
        self._tables[contact.family].remove(contact.node_id)
        return True

    def find_neighbors(
        self, target: bytes, count: int, family: int, *, good_only: bool = False, exclude: bytes = b""
    ) -> list[Contact]:
        """The ``count`` contacts closest to ``target``: nsmallest over every bucket of ``family``."""
        standings = self._tables[family].in_buckets() if family in self._tables else []
        candidates = (
            s.contact for s in standings if s.contact.node_id != exclude and not (good_only and s.failures)
        )
        return heapq.nsmallest(count, candidates, key=lambda c: distance(c.node_id, target))

    def good(self) -> list[Standing]:
        """Contacts without a pending failure, the fastest first."""
        return sorted((s for s in self._all() if not s.failures), key=lambda s: (s.rtt_s, s.contact.endpoint))

    def longest_unheard(self, now: float, after_s: float, count: int) -> list[Contact]:
        """Up to ``count`` contacts not heard of for ``after_s``, to be pinged."""
        quiet = [s for s in self._all() if now - s.heard_at >= after_s]
        return [s.contact for s in heapq.nsmallest(count, quiet, key=lambda s: s.heard_at)]

    def rtt_s(self, contact: Contact) -> float | None:
        """Smoothed round trip, None for a stranger."""
        standing = self.get(contact.node_id, contact.family)
        return standing.rtt_s if standing is not None else None

    def knows(self, endpoint: Endpoint) -> bool:
        return any(s.contact.endpoint == endpoint for s in self._all())

    def refresh_targets(self, now: float, random_bytes: Callable[[int], bytes]) -> list[bytes]:
        """A random id in every bucket that is due for a refresh."""
        targets = []
        for low, high in (r for table in self._tables.values() for r in table.stale_ranges(now)):
            offset = int.from_bytes(random_bytes(ID_BITS // 8), "big") % (high - low + 1)
            targets.append((low + offset).to_bytes(ID_BITS // 8, "big"))
        return targets

    def __len__(self) -> int:
        """Node ids known, whatever the family."""
        return len({s.contact.node_id for s in self._all()})

    def _all(self) -> Iterable[Standing]:
        return (standing for table in self._tables.values() for standing in table.in_buckets())
