"""One of the disjoint paths of a lookup, without IO: whom it knows, whom it asks next, when it has ended.

What a node says about others reaches only the path that asked it, and every node is asked by one path: a
hostile node misleads the path that came by it, and no other (S/Kademlia, Baumgart & Mies 2007, section 4.4).
"""

from bisect import insort
from collections.abc import Container, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Optional

from dhtvpn.discovery.contact import Contact
from dhtvpn.endpoint import Endpoint

REPLICAS = 8
"""Closest live nodes that a lookup must have heard, and that store or push; BEP 5 uses 8."""

OWN_ANSWERS = 4
"""Closest live nodes that a path must have asked itself before it ends. Those that other paths have asked do
not count: hostile nodes name the same few of their own kind everywhere, and when one or two captured paths
have used them up, the next path passes them by."""

MAX_ENTRIES = 96
"""Contacts of one path; the farthest unasked one makes room."""

MAX_ASKED = 48
"""Queries of one path, so that a flood of inventions ends that path and takes nothing from the others."""


Rank = tuple[int, Endpoint]
"""Distance to the target, then the endpoint: the order of asking."""


class State(Enum):
    """NEW -> ASKED -> ANSWERED or FAILED; an ASKED one that passes the soft timeout is SLOW until then."""

    NEW = auto()
    ASKED = auto()
    SLOW = auto()
    ANSWERED = auto()
    FAILED = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """A contact of one lookup. Several paths may have heard of it; one asks it."""

    rank: Rank
    contact: Contact
    state: State = State.NEW
    asked_by: Optional["DisjointPath"] = None


class DisjointPath:
    """Entries by distance, shared with other paths that heard of them from others."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.asked = 0

    def hear_of(self, entry: Entry) -> Entry | None:
        """A node of this path, or the own table, named it. Returns an entry that made room for it."""
        if entry in self.entries:
            return None
        insort(self.entries, entry, key=_rank)
        return self._drop_farthest_new() if len(self.entries) > MAX_ENTRIES else None

    def ask(self, entry: Entry) -> None:
        """``entry`` is being asked, by this path."""
        entry.state, entry.asked_by = State.ASKED, self
        self.asked += 1

    @property
    def in_flight(self) -> int:
        """Queries of this path that are neither answered nor slow."""
        return sum(entry.state is State.ASKED and entry.asked_by is self for entry in self.entries)

    def candidate(self, busy: Container[bytes]) -> Entry | None:
        """The closest NEW entry, unless OWN_ANSWERS closer nodes have answered this path or still may. Node
        ids in ``busy`` have answered or are being asked at another address."""
        own = 0
        for entry in self.entries:
            if entry.state is State.NEW and entry.contact.node_id not in busy:
                return entry if self.asked < MAX_ASKED else None
            own += entry.asked_by is self and entry.state in (State.ASKED, State.ANSWERED)
            if own >= OWN_ANSWERS:
                return None
        return None

    def _drop_farthest_new(self) -> Entry | None:
        for index in range(len(self.entries) - 1, -1, -1):
            if self.entries[index].state is State.NEW:
                return self.entries.pop(index)
        return None


def _rank(entry: Entry) -> Rank:
    return entry.rank


def closest_to_ask(entries: Iterable[Entry], busy: Container[bytes], enough: int) -> Entry | None:
    """The closest NEW one of ``entries``, which are in order, unless ``enough`` closer nodes have answered
    or are being asked."""
    live: set[bytes] = set()
    for entry in entries:
        if entry.state is State.NEW and entry.contact.node_id not in busy:
            return entry
        if entry.state in (State.ASKED, State.ANSWERED):
            live.add(entry.contact.node_id)
            if len(live) >= enough:
                return None
    return None
