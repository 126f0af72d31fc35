"""The roster: of every member the best record that was seen, and no way back to an older one.

A record that has expired leaves the roster, but its sequence number is remembered until everything
older must have expired too: otherwise an old record with a later expiry could be brought back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from dhtvpn.records.envelope import MAX_LIFETIME_S, OpenedRecord

MAX_MEMBERS = 1024
MAX_REMEMBERED = 4 * MAX_MEMBERS
"""Sequence numbers remembered, of present and of former members: 100 bytes each."""


class Change(Enum):
    """What an offered record did to the roster."""

    NEW = "new"
    """A member that was not in the roster."""
    UPDATED = "updated"
    """A member says something else than before; perhaps that it is leaving."""
    UNCHANGED = "unchanged"
    """A member says the same as before, perhaps with a higher sequence number or a later expiry."""
    STALE = "stale"
    """Older than what was seen, expired, or a farewell of somebody unknown."""
    FULL = "full"
    """A new member, but there are MAX_MEMBERS already."""


@dataclass(frozen=True)
class Floor:
    """Below which no record of a member is taken."""

    sequence: int
    until: float
    """Unix seconds at which every older record of the member has expired."""


class Roster:
    """The members of one network, by node key."""

    def __init__(self, floors: Mapping[bytes, Floor] | None = None) -> None:
        """``floors``: those of an earlier run, by node key."""
        self._best: dict[bytes, OpenedRecord] = {}
        self._seen: dict[bytes, Floor] = {}
        self.restore(floors or {})

    def __len__(self) -> int:
        return len(self._best)

    def get(self, node_key: bytes) -> OpenedRecord | None:
        """The best record of ``node_key``, or None when it is no present member."""
        return self._best.get(node_key)

    def as_list(self) -> list[OpenedRecord]:
        """The best record of every present member, by node key."""
        return [self._best[node_key] for node_key in sorted(self._best)]

    def restore(self, floors: Mapping[bytes, Floor]) -> None:
        """Take over what an earlier run has seen, at most MAX_REMEMBERED members; never lowers anything."""
        for node_key, floor in floors.items():
            seen = self._seen.get(node_key)
            if (seen is None and len(self._seen) < MAX_REMEMBERED) or (
                seen is not None and seen.sequence < floor.sequence
            ):
                self._seen[node_key] = floor

    def floors(self) -> dict[bytes, Floor]:
        """What has to survive a restart: of present and former members, at most MAX_REMEMBERED."""
        return dict(self._seen)

    def admits(self, opened: OpenedRecord, unix_time: float) -> bool:
        """Whether ``opened`` is no older than what was seen of its member. Nothing is remembered of it."""
        seen = self._seen.get(opened.record.node_key)
        return opened.expires > unix_time and (seen is None or opened.sequence >= seen.sequence)

    def offer(self, opened: OpenedRecord, unix_time: float) -> Change:
        """Take ``opened`` if it is better than what is known of its member.

        Of two different records with one sequence number (two machines with one identity) the first
        stays. A leaving member is taken out of the roster, and the answer is UPDATED.
        """
        node_key = opened.record.node_key
        seen, best = self._seen.get(node_key), self._best.get(node_key)
        if opened.expires <= unix_time or (seen is not None and opened.sequence < seen.sequence):
            return Change.STALE
        if best is None:
            return self._offer_unknown(opened, unix_time)
        if opened.sequence == best.sequence and opened.record != best.record:
            return Change.STALE
        self._remember(node_key, opened.sequence, unix_time)
        if opened.record == best.record:
            self._best[node_key] = replace(opened, expires=max(opened.expires, best.expires))
            return Change.UNCHANGED
        if opened.record.leaving:
            del self._best[node_key]
        else:
            self._best[node_key] = opened
        return Change.UPDATED

    def expire(self, unix_time: float) -> list[bytes]:
        """Take out whom nobody has heard of in time; returns their node keys."""
        gone = sorted(node_key for node_key, best in self._best.items() if best.expires <= unix_time)
        for node_key in gone:
            del self._best[node_key]
        forgotten = [
            node_key
            for node_key, seen in self._seen.items()
            if seen.until <= unix_time and node_key not in self._best
        ]
        for node_key in forgotten:
            del self._seen[node_key]
        return gone

    def _offer_unknown(self, opened: OpenedRecord, unix_time: float) -> Change:
        node_key = opened.record.node_key
        if opened.record.leaving:
            self._remember(node_key, opened.sequence, unix_time)
            return Change.STALE
        if len(self._best) >= MAX_MEMBERS:
            return Change.FULL
        self._remember(node_key, opened.sequence, unix_time)
        self._best[node_key] = opened
        return Change.NEW

    def _remember(self, node_key: bytes, sequence: int, unix_time: float) -> None:
        if self._seen.pop(node_key, None) is None and len(self._seen) >= MAX_REMEMBERED:
            # The table is in the order of hearing: the first former member is the longest unheard of.
            del self._seen[next(key for key in self._seen if key not in self._best)]
        self._seen[node_key] = Floor(sequence, unix_time + MAX_LIFETIME_S)
