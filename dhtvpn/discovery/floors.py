"""The highest sequence of slots whose envelope is gone: what keeps anybody from rolling a slot back.

While an envelope is stored it is its own floor. When it expires or is evicted, an older envelope of the same
slot may still be valid, and whoever kept a copy could store it again. So (topic, slot) is remembered, as a
hash, until the latest moment at which an older envelope can be valid. Pure but for :class:`KeptFloors`.
"""

import hashlib
import heapq
import logging
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from dhtvpn.discovery.shares import Holder, Shares
from dhtvpn.errors import DamagedStateError, SystemRefusedError
from dhtvpn.files import read_bytes, write_atomic
from dhtvpn.records.envelope import MAX_LIFETIME_S

log = logging.getLogger(__name__)

FLOOR_S: Final = MAX_LIFETIME_S
"""An older envelope was signed before the newer one came here, and no expiry lies further ahead of its
signing than this: so this long after the newer one came, no older one is valid."""

MAX_FLOORS: Final = 4096
FLOOR_OVERHEAD: Final = 1100
"""Octets of memory for one that has address and prefix to itself, measured with tracemalloc
(test_floors_cost_what_they_are_counted_as)."""

DISK_BUCKETS: Final = 256
"""Floors of an earlier run are charged to so many holders, by chance: addresses are not written down. One
holder for all would be the heaviest, and give way to any flooder first. As it is, a flooding prefix gets no
more than one bucket has, and whoever comes with a few of his own still finds room."""

FINGERPRINT = 16
_MAGIC: Final = b"dhtvpn floors 1\n"
_ENTRY: Final = struct.Struct(f"!{FINGERPRINT}sQQ")


class Floor(NamedTuple):
    """One slot's: nothing below ``sequence`` is taken before ``until`` (unix seconds)."""

    sequence: int
    until: int
    holder: Holder


class Floors:
    """Fingerprint of (topic, slot) to its floor, at most ``most`` of them, shared fairly by prefix."""

    def __init__(self, most: int = MAX_FLOORS) -> None:
        self._most = most
        self._floors: dict[bytes, Floor] = {}
        self._by_until: list[tuple[int, bytes]] = []
        self._of_address: dict[bytes, dict[bytes, None]] = {}
        self._shares = Shares()

    def sequence(self, dht_key: bytes, slot: bytes) -> int:
        """The lowest that may be stored there; 0 where nothing is known."""
        floor = self._floors.get(_fingerprint(dht_key, slot))
        return floor.sequence if floor is not None else 0

    def raise_to(self, dht_key: bytes, slot: bytes, floor: Floor) -> None:
        """An envelope with this sequence is going. A lower floor than the one that stands changes nothing."""
        self._raise(_fingerprint(dht_key, slot), floor)

    def expire(self, unix_time: float) -> None:
        """Forget what nothing valid can be below any more."""
        while self._by_until and self._by_until[0][0] <= unix_time:
            until, fingerprint = heapq.heappop(self._by_until)
            floor = self._floors.get(fingerprint)
            if floor is not None and floor.until == until:
                self._forget(fingerprint)

    def pack(self, more: Iterable[tuple[bytes, bytes, Floor]] = ()) -> bytes:
        """For the disk: these and ``more`` (dht_key, slot, floor), without whom they are charged to."""
        kept = dict(self._floors)
        kept |= {_fingerprint(dht_key, slot): floor for dht_key, slot, floor in more}
        entries = [_ENTRY.pack(name, floor.sequence, floor.until) for name, floor in sorted(kept.items())]
        return _MAGIC + b"".join(entries)

    def unpack(self, content: bytes, unix_time: float) -> int:
        """Take in what :meth:`pack` made; returns how many still count. Raises DamagedStateError."""
        body = content[len(_MAGIC) :]
        if not content.startswith(_MAGIC) or len(body) % _ENTRY.size:
            raise DamagedStateError("not a list of floors")
        salt = hashlib.blake2b(content, digest_size=16).digest()  # nobody knows all that was in the file
        soonest_first = sorted(_ENTRY.iter_unpack(body), key=lambda entry: entry[2])
        for fingerprint, sequence, until in soonest_first:
            if unix_time < until <= unix_time + FLOOR_S:
                self._raise(fingerprint, Floor(sequence, until, _disk_bucket(fingerprint, salt)))
        return len(self._floors)

    def __len__(self) -> int:
        return len(self._floors)

    def _raise(self, fingerprint: bytes, floor: Floor) -> None:
        held = self._floors.get(fingerprint)
        if held is not None:
            if held.sequence > floor.sequence:
                return
            floor = floor._replace(until=max(floor.until, held.until))
            self._forget(fingerprint)
        if len(self._floors) >= self._most and not self._make_room(floor.holder):
            return
        self._floors[fingerprint] = floor
        heapq.heappush(self._by_until, (floor.until, fingerprint))
        self._of_address.setdefault(floor.holder.address, {})[fingerprint] = None
        self._shares.add(floor.holder, 1)
        if len(self._by_until) > 2 * len(self._floors) + 64:  # entries of floors that were raised
            self._by_until = [(held.until, name) for name, held in self._floors.items()]
            heapq.heapify(self._by_until)

    def _make_room(self, newcomer: Holder) -> bool:
        """The oldest floor of whoever has the most goes."""
        gives = self._shares.gives_way_to(newcomer, 1)
        mine = self._of_address.get(gives.address) if gives is not None else None
        if not mine:
            return False
        self._forget(next(iter(mine)))
        return True

    def _forget(self, fingerprint: bytes) -> None:
        floor = self._floors.pop(fingerprint)
        mine = self._of_address[floor.holder.address]
        del mine[fingerprint]
        if not mine:
            del self._of_address[floor.holder.address]
        self._shares.add(floor.holder, -1)


class KeptFloors:
    """Floors in one file, written when a node stops in good order."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> bytes | None:
        """What is there, or None. A file that cannot be read costs a warning and nothing else: readers
        keep floors of their own."""
        try:
            return read_bytes(self._path)
        except (DamagedStateError, SystemRefusedError) as error:
            log.warning("%s: starting without floors", error)
            return None

    def save(self, content: bytes) -> None:
        """Raises SystemRefusedError."""
        write_atomic(self._path, content)


def _disk_bucket(fingerprint: bytes, salt: bytes) -> Holder:
    """One of DISK_BUCKETS, which nobody can choose by choosing his slot."""
    number = hashlib.blake2b(fingerprint, digest_size=1, key=salt).digest()
    return Holder(b"disk" + number, b"disk" + number)  # longer than IPv4's prefixes, shorter than IPv6's


def _fingerprint(dht_key: bytes, slot: bytes) -> bytes:
    return hashlib.blake2b(dht_key + slot, digest_size=FINGERPRINT, person=b"dhtvpn floor").digest()
