"""What a storing node keeps: topic to slot to newest envelope, verified, until its signed expiry.

Nothing here is republished: the publisher does that. Everything is capped. When the whole store is full,
the prefix that holds the most gives way (shares.py), and of it the envelope that is the soonest to expire.
What goes leaves a floor behind (floors.py), so that nobody rolls its slot back.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from dhtvpn.discovery.directory import MAX_ENVELOPE, Inspect
from dhtvpn.discovery.floors import FLOOR_S, MAX_FLOORS, Floor, Floors
from dhtvpn.discovery.shares import OURSELVES, Holder, Shares, holder_of
from dhtvpn.discovery.wire import unpack_have
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

MAX_SLOTS_PER_TOPIC = 128
"""Twice the 64 members up to which every node connects to every other (design, section 3)."""

MAX_BYTES = 16 << 20
"""Octets of envelopes in total, with ENTRY_OVERHEAD for each. As every envelope is charged with a topic of
its own, this caps topics too: about 11,000."""

ENTRY_OVERHEAD = 1600
"""Octets of memory beside an envelope that has topic, address and prefix to itself, measured with tracemalloc
(test_envelopes_cost_what_they_are_counted_as)."""

MAX_STORES_PER_ADDRESS = 256
"""Envelopes stored by one IPv4 address or IPv6 /64: 128 members behind one NAT in two epochs."""

PREFIX_SHARE = 8
"""One part in this many is the most that a single IPv4 /24 or IPv6 /48 gets, even of an empty store."""


class Outcome(Enum):
    """What became of a store."""

    NEW = "new"
    REFRESHED = "refreshed"
    STALE = "stale"
    FULL = "full"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Stored:
    """One slot's newest envelope; ``holder`` is who is charged for it."""

    envelope: bytes
    slot: bytes
    sequence: int
    expires: int
    floor_until: int
    """Unix seconds: an older envelope may be valid until then."""
    holder: Holder

    @property
    def cost(self) -> int:
        """Octets of memory."""
        return len(self.envelope) + ENTRY_OVERHEAD

    @property
    def floor(self) -> Floor:
        """What must stay when the envelope goes."""
        return Floor(self.sequence, self.floor_until, self.holder)


class Storage:
    """Verified envelopes. ``unix_time`` comes in with every call; expired ones are never handed out."""

    def __init__(
        self,
        inspect: Inspect,
        drops: Drops,
        *,
        max_slots: int = MAX_SLOTS_PER_TOPIC,
        max_bytes: int = MAX_BYTES,
        max_per_address: int = MAX_STORES_PER_ADDRESS,
        max_per_prefix: int | None = None,
        max_floors: int = MAX_FLOORS,
    ) -> None:
        self._inspect, self._drops = inspect, drops
        self._max_slots, self._max_bytes, self._max_per_address = max_slots, max_bytes, max_per_address
        self._max_per_prefix = max_bytes // PREFIX_SHARE if max_per_prefix is None else max_per_prefix
        self._topics: dict[bytes, dict[bytes, Stored]] = {}
        self._by_expiry: list[tuple[int, bytes, bytes, int]] = []
        self._of_address: dict[bytes, dict[tuple[bytes, bytes], Stored]] = {}
        self._shares = Shares()
        self._floors = Floors(max_floors)
        self._count = 0
        self._bytes = 0

    def put(self, dht_key: bytes, envelope: bytes, source: Endpoint | None, unix_time: float) -> Outcome:
        """Verify and keep ``envelope``; ``source`` is None for our own. Drops are counted by reason."""
        self.expire(unix_time)
        try:
            if len(envelope) > MAX_ENVELOPE:
                raise DecodeError("size")
            seen = self._inspect(envelope, dht_key, unix_time)
            if seen.expires <= unix_time:
                raise DecodeError("expired")
        except DecodeError as error:
            self._drops.count("record", error.reason)
            return Outcome.REFUSED
        holder = holder_of(source)
        held = self._topics.get(dht_key, {}).get(seen.slot)
        if held is not None and held.envelope == envelope:
            self._charge_the_lighter(dht_key, held, holder)
            return Outcome.REFRESHED
        if seen.sequence < self._floors.sequence(dht_key, seen.slot) or (
            held is not None and seen.sequence <= held.sequence
        ):
            self._drops.count("dht", "stale_sequence")
            return Outcome.STALE
        floor_until = int(unix_time + FLOOR_S)
        stored = Stored(envelope, seen.slot, seen.sequence, seen.expires, floor_until, holder)
        if not self._has_room(dht_key, stored, held):
            self._drops.count("dht", "storage_full")
            return Outcome.FULL
        if held is not None:
            self._remove(dht_key, held)
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
            stored = self._topics.get(dht_key, {}).get(slot)
            if stored is None or stored.sequence != sequence:
                continue  # replaced or gone long ago
            self._remove(dht_key, stored)
            self._floors.raise_to(dht_key, slot, stored.floor)
            dropped += 1
        self._floors.expire(unix_time)
        return dropped

    def pack_floors(self) -> bytes:
        """Every floor, those of stored envelopes too, for the disk: hashes, sequences and times."""
        return self._floors.pack((key, stored.slot, stored.floor) for key, stored in self._all())

    def unpack_floors(self, content: bytes, unix_time: float) -> int:
        """What an earlier run has kept; returns how many still count. Raises DamagedStateError."""
        return self._floors.unpack(content, unix_time)

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Octets accounted for, never more than the cap."""
        return self._bytes

    @property
    def topics(self) -> int:
        return len(self._topics)

    @property
    def floors(self) -> int:
        """Slots that are remembered without their envelope."""
        return len(self._floors)

    @property
    def prefixes(self) -> int:
        """IPv4 /24 and IPv6 /48 that store here."""
        return self._shares.prefixes

    def _all(self) -> Iterator[tuple[bytes, Stored]]:
        return ((key, stored) for key, slots in self._topics.items() for stored in slots.values())

    def _charge_the_lighter(self, dht_key: bytes, held: Stored, holder: Holder) -> None:
        """A second one stores the same octets. Anybody can copy an envelope, and let it be evicted with a
        flood of his own; so the charge goes to the prefix that holds less."""
        if held.holder == OURSELVES or holder.prefix == held.holder.prefix:
            return
        lighter = self._shares.of_prefix(holder.prefix) + held.cost < self._shares.of_prefix(
            held.holder.prefix
        )
        full = len(self._of_address.get(holder.address, ())) >= self._max_per_address
        if lighter and (holder == OURSELVES or not full):
            self._charge(dht_key, held, -1)
            moved = replace(held, holder=holder)
            self._topics[dht_key][held.slot] = moved
            self._charge(dht_key, moved, 1)

    def _has_room(self, dht_key: bytes, stored: Stored, held: Stored | None) -> bool:
        """Make room where that is allowed: nobody gives way to one who would hold more than he does."""
        slots = self._topics.get(dht_key)
        if held is None and slots is not None and len(slots) >= self._max_slots:
            return False
        holder = stored.holder
        kept = held.cost if held is not None and held.holder.prefix == holder.prefix else 0
        if holder != OURSELVES:
            mine = self._of_address.get(holder.address, {})
            if len(mine) >= self._max_per_address and (dht_key, stored.slot) not in mine:
                return False
            while self._shares.of_prefix(holder.prefix) - kept + stored.cost > self._max_per_prefix:
                gives = self._shares.gives_way_inside(holder, stored.cost - kept)
                if gives is None or not self._evict(gives, dht_key, stored):
                    return False
        freed = held.cost if held is not None else 0
        while self._bytes - freed + stored.cost > self._max_bytes:
            gives = self._shares.gives_way_to(holder, stored.cost - kept)
            if gives is None or not self._evict(gives, dht_key, stored):
                return False
        return True

    def _evict(self, gives: Holder, dht_key: bytes, newcomer: Stored) -> bool:
        """Of ``gives`` the soonest to expire, for ``newcomer``; not the slot that it replaces, and of its own
        holder nothing that outlives it."""
        place = (dht_key, newcomer.slot)
        mine = self._of_address.get(gives.address, {})
        candidates = [(stored.expires, *key) for key, stored in mine.items() if key != place]
        if not candidates:
            return False
        expires, key, slot = min(candidates)
        if gives == newcomer.holder and expires >= newcomer.expires:
            return False
        stored = self._topics[key][slot]
        self._remove(key, stored)
        self._floors.raise_to(key, slot, stored.floor)
        self._drops.count("dht", "evicted")
        return True

    def _insert(self, dht_key: bytes, stored: Stored) -> None:
        self._topics.setdefault(dht_key, {})[stored.slot] = stored
        heapq.heappush(self._by_expiry, (stored.expires, dht_key, stored.slot, stored.sequence))
        self._charge(dht_key, stored, 1)
        self._count += 1
        self._bytes += stored.cost
        if len(self._by_expiry) > 2 * self._count + 64:  # entries of replaced envelopes, left lazily
            self._by_expiry = [(s.expires, key, s.slot, s.sequence) for key, s in self._all()]
            heapq.heapify(self._by_expiry)

    def _remove(self, dht_key: bytes, stored: Stored) -> None:
        slots = self._topics[dht_key]
        del slots[stored.slot]
        if not slots:
            del self._topics[dht_key]
        self._charge(dht_key, stored, -1)
        self._count -= 1
        self._bytes -= stored.cost

    def _charge(self, dht_key: bytes, stored: Stored, sign: int) -> None:
        """Enter ``stored`` in its holder's account, or take it out."""
        address, place = stored.holder.address, (dht_key, stored.slot)
        self._shares.add(stored.holder, sign * stored.cost)
        if sign > 0:
            self._of_address.setdefault(address, {})[place] = stored
            return
        mine = self._of_address[address]
        del mine[place]
        if not mine:
            del self._of_address[address]
