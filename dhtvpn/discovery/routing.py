"""The routing table: k-buckets (Kademlia paper, sections 2.2 and 2.4), one set per address family (BEP 32).

Only contacts that answered a query of ours are in it. Their ids fit their addresses (BEP 42), and of one /24
or /64 there are two in a bucket at most. Those whose ids do not fit are strays: a few of them are kept
beside the buckets, for a network that has nobody else, and nobody is told about them.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import Final

from dhtvpn.discovery.buckets import (
    DEFAULT_RULES,
    ID_BITS,
    REFRESH_AFTER_S,
    AddressRules,
    Buckets,
    K,
    Standing,
)
from dhtvpn.discovery.contact import Contact, distance
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.endpoint import Endpoint

__all__ = ["MAX_FAILURES", "MAX_STRAYS", "REFRESH_AFTER_S", "K", "RoutingTable", "Standing"]

MAX_FAILURES: Final = 2
"""Queries in a row without an answer after which a contact is dropped."""

MAX_STRAYS: Final = 8
"""Per family, and only while fewer than FEW others are known. Those that came first stay while they answer:
the ones that we were told to start from."""

FEW: Final = 8
"""Contacts with ids that fit, as many as a lookup ends with: where there are so many strays play no part."""

CHECKED_S: Final = 1800.0
"""Who answered within this is told to others before anybody else. BEP 5 calls a contact good for 15 minutes;
upkeep asks after as many, and needs a while to get round."""

MIN_RTT_S, RTT_WEIGHT = 0.001, 0.25


class _Family:
    """What is known of one address family."""

    def __init__(self, own_id: bytes, k: int, rules: AddressRules, now: float) -> None:
        self._k, self._rules = k, rules
        self.buckets = Buckets(own_id, k, rules, now)
        self.strays: dict[bytes, Standing] = {}

    def get(self, node_id: bytes) -> Standing | None:
        return self.buckets.get(node_id) or self.strays.get(node_id)

    def add(self, standing: Standing) -> Contact | None:
        """Returns whom to ping to settle whether it may have the place. An endpoint has one id: the last."""
        contact = standing.contact
        self._forget_other_id(contact)
        if contact.fits:
            self.buckets.add(standing)
            return self.buckets.in_the_way(contact)
        if len(self.strays) < MAX_STRAYS and len(self.buckets) < FEW:
            self.strays[contact.node_id] = standing
        return None

    def remove(self, node_id: bytes) -> None:
        if self.strays.pop(node_id, None) is None:
            self.buckets.remove(node_id)

    def all(self) -> list[Standing]:
        return [*self.buckets.standings(), *self.strays.values()]

    def rebuild(self, own_id: bytes, now: float) -> None:
        """The same contacts in buckets around another id."""
        known = self.buckets.everybody()
        self.buckets = Buckets(own_id, self._k, self._rules, now)
        for standing in known:
            if standing.contact.node_id != own_id:
                self.buckets.add(standing)

    def _forget_other_id(self, contact: Contact) -> None:
        strays = (node_id for node_id, s in self.strays.items() if s.contact.endpoint == contact.endpoint)
        for other in [self.buckets.id_at(contact.endpoint), *strays]:
            if other is not None and other != contact.node_id:
                self.remove(other)


def _random_id(bounds: tuple[int, int], random_bytes: Callable[[int], bytes]) -> bytes:
    low, high = bounds
    offset = int.from_bytes(random_bytes(ID_BITS // 8), "big") % (high - low + 1)
    return (low + offset).to_bytes(ID_BITS // 8, "big")


class RoutingTable:
    """One set of buckets per family that this node can reach; a node may be in both, under an id in each."""

    def __init__(self, own: OwnIds, now: float, k: int = K, rules: AddressRules = DEFAULT_RULES) -> None:
        self.own = own
        self._tables = {family: _Family(own.of(family), k, rules, now) for family in own.families}

    def get(self, node_id: bytes, family: int) -> Standing | None:
        return self._tables[family].get(node_id) if family in self._tables else None

    def reachable(self, contact: Contact) -> bool:
        """Whether we speak its family and it is not ourselves."""
        return contact.family in self._tables and contact.node_id != self.own.of(contact.family)

    def wants(self, contact: Contact) -> bool:
        """Whether a stranger is worth a ping: reachable, unknown, with an id that fits, and a place for
        it."""
        return (
            self.reachable(contact) and contact.fits and self._tables[contact.family].buckets.wants(contact)
        )

    def heard(self, contact: Contact, now: float, rtt_s: float) -> Contact | None:
        """``contact`` answered a query of ours. Returns a contact that should be pinged to settle things:
        the same id at another endpoint, or the least recently heard of those that are in its way."""
        if not self.reachable(contact):
            return None
        table = self._tables[contact.family]
        standing = table.get(contact.node_id)
        if standing is not None and standing.contact.endpoint != contact.endpoint:
            if standing.failures == 0:
                return standing.contact
            table.remove(contact.node_id)
            table.add(Standing(contact, now, max(rtt_s, MIN_RTT_S), standing.since))
            return None
        if standing is None:
            return table.add(Standing(contact, now, max(rtt_s, MIN_RTT_S), now))
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

    def own_id_changed(self, family: int, now: float) -> None:
        """Put the contacts into buckets around our new id; none is lost that has a place there."""
        self._tables[family].rebuild(self.own.of(family), now)

    def find_neighbors(self, target: bytes, count: int, family: int) -> list[Contact]:
        """The ``count`` contacts closest to ``target``: nsmallest over every bucket of ``family``. Strays are
        among them while few others are known."""
        if family not in self._tables:
            return []
        table = self._tables[family]
        standings = table.buckets.standings() if len(table.buckets) >= FEW else table.all()
        contacts = (standing.contact for standing in standings)
        return heapq.nsmallest(count, contacts, key=lambda c: distance(c.node_id, target))

    def to_tell(
        self, target: bytes, count: int, family: int, now: float, *, exclude: bytes = b""
    ) -> list[Contact]:
        """The ``count`` closest to ``target`` that others may be told: no stray, nobody who did not answer
        when last asked. First those who answered lately; the others only where these are too few."""
        standings = self._tables[family].buckets.standings() if family in self._tables else []
        able = [s for s in standings if not s.failures and s.contact.node_id != exclude]
        lately = [s for s in able if now - s.heard_at < CHECKED_S]
        told = heapq.nsmallest(count, lately, key=lambda s: distance(s.contact.node_id, target))
        if len(told) < count:
            others = (s for s in able if now - s.heard_at >= CHECKED_S)
            told += heapq.nsmallest(
                count - len(told), others, key=lambda s: distance(s.contact.node_id, target)
            )
        return [standing.contact for standing in told]

    def to_check(self, target: bytes, count: int, family: int, now: float) -> list[Contact]:
        """Of the ``count`` closest to ``target``, those that would be told had they answered lately."""
        standings = self._tables[family].buckets.standings() if family in self._tables else []
        closest = heapq.nsmallest(count, standings, key=lambda s: distance(s.contact.node_id, target))
        return [s.contact for s in closest if not s.failures and now - s.heard_at >= CHECKED_S]

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
        stale = (r for table in self._tables.values() for r in table.buckets.stale_ranges(now))
        return [_random_id(r, random_bytes) for r in stale]

    def bucket_targets(self, random_bytes: Callable[[int], bytes]) -> list[bytes]:
        """A random id in every bucket, the farthest ones first."""
        ranges = {r for table in self._tables.values() for r in table.buckets.ranges()}
        return [_random_id(r, random_bytes) for r in sorted(ranges, key=lambda r: r[0] - r[1])]

    def __len__(self) -> int:
        """Node ids known, whatever the family."""
        return len({s.contact.node_id for s in self._all()})

    def _all(self) -> Iterable[Standing]:
        return (standing for table in self._tables.values() for standing in table.all())
