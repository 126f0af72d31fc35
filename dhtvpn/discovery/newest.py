"""What one reader of one topic holds: each slot's newest envelope, verified before anybody sees it."""

from dhtvpn.discovery.directory import MAX_ENVELOPE, Inspect, Inspected
from dhtvpn.discovery.storage import MAX_SLOTS_PER_TOPIC
from dhtvpn.discovery.wire import pack_have
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError


class NewestEnvelopes:
    """Merge answers of many storing nodes by (slot, highest sequence). Of a hostile answer nothing stays."""

    def __init__(self, dht_key: bytes, inspect: Inspect, drops: Drops) -> None:
        self.dht_key = dht_key
        self._inspect = inspect
        self._drops = drops
        self._slots: dict[bytes, tuple[int, int, bytes]] = {}
        self._pending: dict[bytes, bytes] = {}
        self._envelopes: set[bytes] = set()

    def offer(self, envelope_untrusted: bytes, unix_time: float) -> bool:
        """True when it verifies and is newer than what its slot holds; it is pending then."""
        if envelope_untrusted in self._envelopes:
            return False
        seen = self._check(envelope_untrusted, unix_time)
        if seen is None:
            return False
        self._forget_expired(unix_time)
        held = self._slots.get(seen.slot)
        if held is not None and held[0] >= seen.sequence:
            return False
        if held is None and len(self._slots) >= MAX_SLOTS_PER_TOPIC:
            self._drops.count("dht", "reader_full")
            return False
        if held is not None:
            self._envelopes.discard(held[2])
        self._slots[seen.slot] = (seen.sequence, seen.expires, envelope_untrusted)
        self._envelopes.add(envelope_untrusted)
        self._pending[seen.slot] = envelope_untrusted
        return True

    def holds(self, envelope: bytes) -> bool:
        """Whether ``envelope`` is the newest of a slot: it has been verified then."""
        return envelope in self._envelopes

    def take(self) -> list[bytes]:
        """What is pending, oldest first; of a slot that changed twice meanwhile only the newest."""
        taken = list(self._pending.values())
        self._pending.clear()
        return taken

    def held(self) -> list[tuple[bytes, int]]:
        """(slot, sequence) of every slot's newest."""
        return [(slot, held[0]) for slot, held in self._slots.items()]

    def have(self) -> bytes:
        """The ``have`` list for requests: what storing nodes need not send again."""
        newest_first = sorted(self._slots.items(), key=lambda item: -item[1][1])
        return pack_have((slot, held[0]) for slot, held in newest_first)

    def _check(self, envelope_untrusted: bytes, unix_time: float) -> Inspected | None:
        try:
            if len(envelope_untrusted) > MAX_ENVELOPE:
                raise DecodeError("size")
            seen = self._inspect(envelope_untrusted, self.dht_key, unix_time)
        except DecodeError as error:
            self._drops.count("record", error.reason)
            return None
        if seen.expires <= unix_time:
            self._drops.count("record", "expired")
            return None
        return seen

    def _forget_expired(self, unix_time: float) -> None:
        for slot in [slot for slot, held in self._slots.items() if held[1] <= unix_time]:
            self._envelopes.discard(self._slots.pop(slot)[2])
