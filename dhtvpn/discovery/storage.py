"""What a storing node keeps: topic to slot to newest envelope, verified, until its signed expiry.

Nothing here is republished: the publisher does that. Everything is capped; when the whole store is full
the envelope that is the soonest to expire makes room.
"""

import heapq
from collections import Counter
from dataclasses import dataclass
from enum import Enum

from dhtvpn.discovery.contact import address_block
from dhtvpn.discovery.directory import MAX_ENVELOPE, Inspect
from dhtvpn.discovery.wire import unpack_have
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

MAX_SLOTS_PER_TOPIC = 128
"""Twice the 64 members up to which every node connects to every other (design, section 3)."""

MAX_TOPICS = 8192
MAX_BYTES = 16 << 20
"""Octets of envelopes in total, with ENTRY_OVERHEAD for each."""

ENTRY_OVERHEAD = 400
"""Octets of bookkeeping per envelope, about (three dictionaries and a heap)."""

MAX_STORES_PER_ADDRESS = 256
"""Envelopes stored by one IPv4 address or IPv6 /64: 128 members behind one NAT in two epochs."""


class Outcome(Enum):
    """What became of a store."""

    NEW = "new"
    REFRESHED = "refreshed"
    STALE = "stale"
    FULL = "full"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Stored:
    """One slot's newest envelope; ``block`` is who stored it (address_block), ``""`` for ourselves."""

    envelope: bytes
    slot: bytes
    sequence: int
    expires: int
    block: str


class Storage:
    """Verified envelopes. ``unix_time`` comes in with every call; expired ones are never handed out."""

    def __init__(
        self,
        inspect: Inspect,
        drops: Drops,
        *,
        max_slots: int = MAX_SLOTS_PER_TOPIC,
        max_topics: int = MAX_TOPICS,
        max_bytes: int = MAX_BYTES,
        max_per_address: int = MAX_STORES_PER_ADDRESS,
    ) -> None:
        self._inspect = inspect
        self._drops = drops
        self._max_slots, self._max_topics = max_slots, max_topics
        self._max_bytes, self._max_per_address = max_bytes, max_per_address
        self._topics: dict[bytes, dict[bytes, Stored]] = {}
        self._by_expiry: list[tuple[int, bytes, bytes, int]] = []
        self._per_block: Counter[str] = Counter()
        self._count = 0
        self._bytes = 0

    def put(self, dht_key: bytes, envelope: bytes, source: Endpoint | None, unix_time: float) -> Outcome:
        """Verify and keep ``envelope``; ``source`` is None for our own. Drops are counted by reason."""
        self.expire(unix_time)
        try:
            if len(envelope) > MAX_ENVELOPE:
                raise DecodeError("size")
            seen = self._inspect(envelope, dht_key, unix_time)
        except DecodeError as error:
            self._drops.count("record", error.reason)
            return Outcome.REFUSED
        if seen.expires <= unix_time:
            self._drops.count("record", "expired")
            return Outcome.REFUSED
        held = self._topics.get(dht_key, {}).get(seen.slot)
        if held is not None and held.envelope == envelope:
            return Outcome.REFRESHED
        if held is not None and seen.sequence <= held.sequence:
            self._drops.count("dht", "stale_sequence")
            return Outcome.STALE
        block = address_block(source) if source is not None else ""
        stored = Stored(envelope, seen.slot, seen.sequence, seen.expires, block)
        if not self._has_room(dht_key, stored, held):
            self._drops.count("dht", "storage_full")
            return Outcome.FULL
        self._insert(dht_key, stored)
        return Outcome.NEW

    def get(self, dht_key: bytes, unix_time: float) -> list[Stored]:
        """Every slot's newest envelope under ``dht_key``, in the order of the slots."""
        slots = self._topics.get(dht_key, {})
        return [slots[slot] for slot in sorted(slots) if slots[slot].expires > unix_time]

    def missing(self, dht_key: bytes, have: bytes, unix_time: float, start: bytes = b"") -> list[Stored]:
        """What a reader with this ``have`` list lacks, by slot, beginning at ``start`` and going round: a
        reader that holds more than it can tell still gets everything in a few requests."""
        known = unpack_have(have)
        lacking = [s for s in self.get(dht_key, unix_time) if known.get(s.slot[:6], -1) < s.sequence]
        return sorted(lacking, key=lambda stored: (stored.slot < start, stored.slot))

    def expire(self, unix_time: float) -> int:
        """Drop what is past its signed expiry; returns how many."""
        dropped = 0
        while self._by_expiry and self._by_expiry[0][0] <= unix_time:
            _, dht_key, slot, sequence = heapq.heappop(self._by_expiry)
            dropped += self._remove(dht_key, slot, sequence)
        return dropped

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Octets accounted for, never more than the cap."""
        return self._bytes

    @property
    def topics(self) -> int:
        return len(self._topics)

    def _has_room(self, dht_key: bytes, stored: Stored, held: Stored | None) -> bool:
        """Make room where that is allowed. A full topic or address gives nothing up for others."""
        changes_hands = held is None or held.block != stored.block
        if stored.block and changes_hands and self._per_block[stored.block] >= self._max_per_address:
            return False
        slots = self._topics.get(dht_key)
        if held is None and slots is not None and len(slots) >= self._max_slots:
            return False
        needed = len(stored.envelope) + ENTRY_OVERHEAD
        if held is not None:
            needed -= len(held.envelope) + ENTRY_OVERHEAD
        while self._bytes + needed > self._max_bytes:
            if not self._evict_before(stored.expires, (dht_key, stored.slot)):
                return False
        while dht_key not in self._topics and len(self._topics) >= self._max_topics:
            if not self._evict_before(stored.expires, (dht_key, stored.slot)):
                return False
        return True

    def _evict_before(self, expires: int, keep: tuple[bytes, bytes]) -> bool:
        """Drop the soonest to expire, unless it outlives the newcomer or is the slot being replaced."""
        while self._by_expiry:
            soonest, dht_key, slot, sequence = self._by_expiry[0]
            held = self._topics.get(dht_key, {}).get(slot)
            if held is None or held.sequence != sequence:
                heapq.heappop(self._by_expiry)  # replaced or gone long ago
                continue
            if soonest >= expires or (dht_key, slot) == keep:
                return False
            heapq.heappop(self._by_expiry)
            self._remove(dht_key, slot, sequence)
            self._drops.count("dht", "evicted")
            return True
        return False

    def _insert(self, dht_key: bytes, stored: Stored) -> None:
        held = self._topics.get(dht_key, {}).get(stored.slot)
        if held is not None:
            self._remove(dht_key, held.slot, held.sequence)
        self._topics.setdefault(dht_key, {})[stored.slot] = stored
        heapq.heappush(self._by_expiry, (stored.expires, dht_key, stored.slot, stored.sequence))
        self._per_block[stored.block] += 1
        self._count += 1
        self._bytes += len(stored.envelope) + ENTRY_OVERHEAD
        if len(self._by_expiry) > 2 * self._count + 64:  # entries of replaced envelopes, left lazily
            self._by_expiry = [
                (s.expires, key, s.slot, s.sequence)
                for key, slots in self._topics.items()
                for s in slots.values()
            ]
            heapq.heapify(self._by_expiry)

    def _remove(self, dht_key: bytes, slot: bytes, sequence: int) -> bool:
        slots = self._topics.get(dht_key, {})
        stored = slots.get(slot)
        if stored is None or stored.sequence != sequence:
            return False
        del slots[slot]
        if not slots:
            del self._topics[dht_key]
        self._per_block[stored.block] -= 1
        if self._per_block[stored.block] <= 0:
            del self._per_block[stored.block]
        self._count -= 1
        self._bytes -= len(stored.envelope) + ENTRY_OVERHEAD
        return True
