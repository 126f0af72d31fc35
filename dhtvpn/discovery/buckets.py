"""The k-buckets of one address family around one id (Kademlia paper, sections 2.2 and 2.4).

``Node`` and ``KBucket`` are kademlia's; splitting, finding, failures and addresses are ours: its traverser
stops early, it never refreshes an address, and it takes any number of contacts from one network.
"""

from dataclasses import dataclass
from typing import Final

from kademlia.node import Node
from kademlia.routing import KBucket

from dhtvpn.discovery.contact import Contact, prefix_of
from dhtvpn.discovery.node_ids import is_exempt
from dhtvpn.endpoint import Endpoint

K: Final = 20
"""Contacts per bucket; the paper's k."""

REFRESH_AFTER_S: Final = 3600.0
"""A bucket without a change for an hour is looked up (Kademlia paper, section 2.3)."""

ID_BITS: Final = 160


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Contacts of one prefix (IPv4 /24, IPv6 /64) in a bucket, replacements included.

    ``local_per_prefix``: where addresses are not on the internet (node_ids.EXEMPT). Whoever is there was let
    in, and in a home or an office all are in one /24: no limit but the bucket's, unless the owner sets one.
    """

    per_prefix: int = 2
    local_per_prefix: int = 6 * K

    def most_at(self, endpoint: Endpoint) -> int:
        return self.local_per_prefix if is_exempt(endpoint.host) else self.per_prefix


DEFAULT_RULES: Final = AddressRules()


@dataclass(slots=True)
class Standing:
    """What we know of a contact in the table. Times are monotonic seconds; ``since``: when it first
    answered."""

    contact: Contact
    heard_at: float
    rtt_s: float
    since: float
    failures: int = 0


class Buckets:
    """Contacts by their distance to ``own_id``; near it there is place for all, far away for ``k`` per
    bucket."""

    def __init__(self, own_id: bytes, k: int, rules: AddressRules, now: float) -> None:
        self._own = int.from_bytes(own_id, "big")
        self._k, self._rules = k, rules
        self._buckets = [self._bucket(0, (1 << ID_BITS) - 1, now)]
        self._standing: dict[bytes, Standing] = {}
        self._of_prefix: dict[bytes, list[bytes]] = {}
        self._at: dict[Endpoint, bytes] = {}

    def get(self, node_id: bytes) -> Standing | None:
        return self._standing.get(node_id)

    def id_at(self, endpoint: Endpoint) -> bytes | None:
        """Under which id it is known."""
        return self._at.get(endpoint)

    def wants(self, contact: Contact) -> bool:
        """Whether this new contact would be kept, if only as a replacement."""
        if contact.node_id in self._standing or self._neighbour_in_the_way(contact) is not None:
            return False
        bucket = self._bucket_for(contact.node_id)
        free = len(bucket.replacement_nodes) < bucket.max_replacement_nodes
        return len(bucket) < self._k or self._splits(bucket) or free

    def add(self, standing: Standing) -> None:
        """Take in a contact that answered: into its bucket, splitting it where our own id is, or among the
        bucket's replacements. Not when enough of its prefix are there."""
        contact = standing.contact
        if self._neighbour_in_the_way(contact) is not None:
            return
        node = Node(contact.node_id, contact.endpoint.host, contact.endpoint.port)
        self._standing[contact.node_id] = standing
        self._at[contact.endpoint] = contact.node_id
        self._of_prefix.setdefault(prefix_of(contact.endpoint), []).append(contact.node_id)
        while not (bucket := self._bucket_for(contact.node_id)).add_node(node):
            if not self._splits(bucket):
                break
            self._split(bucket)
        if node.long_id != self._own:
            bucket.last_updated = max(bucket.last_updated, standing.heard_at)
        self._forget_pushed_out(bucket)

    def remove(self, node_id: bytes) -> None:
        standing = self._forget(node_id)
        if standing is None:
            return
        endpoint = standing.contact.endpoint
        bucket = self._bucket_for(node_id)
        bucket.replacement_nodes.pop(node_id, None)
        bucket.remove_node(Node(node_id, endpoint.host, endpoint.port))

    def standings(self) -> list[Standing]:
        """Every contact that is not merely a replacement."""
        return [self._standing[node_id] for bucket in self._buckets for node_id in bucket.nodes]

    def everybody(self) -> list[Standing]:
        """The same, then the replacements."""
        waiting = [
            self._standing[node_id] for bucket in self._buckets for node_id in bucket.replacement_nodes
        ]
        return self.standings() + waiting

    def in_the_way(self, contact: Contact) -> Contact | None:
        """Whom to ping when ``contact`` found no place or only became a replacement: the least recently
        heard of its bucket (section 2.2), or of those of its prefix in it."""
        neighbour = self._neighbour_in_the_way(contact)
        if neighbour is not None:
            return neighbour
        bucket = self._bucket_for(contact.node_id)
        if contact.node_id in bucket.nodes or not len(bucket):
            return None
        return min((self._standing[other] for other in bucket.nodes), key=lambda s: s.heard_at).contact

    def stale_ranges(self, now: float) -> list[tuple[int, int]]:
        """Id ranges of buckets without a change for REFRESH_AFTER_S; they count as refreshed from now."""
        stale = [b for b in self._buckets if now - b.last_updated >= REFRESH_AFTER_S]
        for bucket in stale:
            bucket.last_updated = now
        return [bucket.range for bucket in stale]

    def ranges(self) -> list[tuple[int, int]]:
        """Id ranges of all buckets."""
        return [bucket.range for bucket in self._buckets]

    def __len__(self) -> int:
        """Replacements included."""
        return len(self._standing)

    def _neighbour_in_the_way(self, contact: Contact) -> Contact | None:
        """When the contact's bucket has as many of its prefix as it may: the one of them heard longest
        ago."""
        known = self._of_prefix.get(prefix_of(contact.endpoint))
        if known is None:
            return None
        low, high = self._bucket_for(contact.node_id).range
        inside = [node_id for node_id in known if low <= int.from_bytes(node_id, "big") <= high]
        if contact.node_id in inside or len(inside) < self._rules.most_at(contact.endpoint):
            return None
        return min((self._standing[node_id] for node_id in inside), key=lambda s: s.heard_at).contact

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
                self._forget(node_id)

    def _forget(self, node_id: bytes) -> Standing | None:
        standing = self._standing.pop(node_id, None)
        if standing is None:
            return None
        endpoint = standing.contact.endpoint
        if self._at.get(endpoint) == node_id:
            del self._at[endpoint]
        prefix = prefix_of(endpoint)
        self._of_prefix[prefix].remove(node_id)
        if not self._of_prefix[prefix]:
            del self._of_prefix[prefix]
        return standing
