"""The shortlist of one lookup, without IO: whom to ask next, and when the closest live nodes have answered.

PATHS disjoint paths go towards the target, each with contacts of its own from the table, and each until it
has heard the closest nodes that it knows of. Then the closest of all of them together are asked, as far as
none of the paths has done so.

A node known under both families is one entry per endpoint, but only its first to answer counts.
"""

from collections.abc import Callable, Iterable

from dhtvpn.discovery.contact import Contact, distance
from dhtvpn.discovery.disjoint_path import (
    MAX_ASKED,
    REPLICAS,
    DisjointPath,
    Entry,
    Rank,
    State,
    closest_to_ask,
)

PATHS = 3
"""The share of captured lookups falls with the power of this, the cost rises in proportion: measured in
docs/simulation.md. S/Kademlia recommends 4 to 8 for nodes that choose ids and addresses freely."""

ALPHA = 4
"""Queries in flight of a lookup that has one path only, for want of contacts; the paper's alpha is 3."""

PATH_ALPHA = 2
"""Queries in flight of each path where there are more, that have not passed their soft timeout."""


class Shortlist:
    """Contacts by distance to ``target``, with their states."""

    def __init__(self, target: bytes, *, paths: int = PATHS, replicas: int = REPLICAS) -> None:
        self._target, self._replicas = target, replicas
        self._paths = [DisjointPath() for _ in range(paths)]
        self._entries: dict[Contact, Entry] = {}
        self._busy: dict[bytes, Entry] = {}
        """By node id, the entry under which it has answered or is being asked."""

    def start(self, contacts: Iterable[Contact]) -> None:
        """Deal contacts of the own table out to the paths, the closest first."""
        for number, contact in enumerate(sorted(dict.fromkeys(contacts), key=self._rank)):
            self._hear_of(self._paths[number % len(self._paths)], contact)

    def next_to_ask(self) -> Contact | None:
        """The contact that is most worth a query, marked ASKED; None while enough are in flight or when
        none of the closest live ones is left to ask."""
        at_once = PATH_ALPHA if sum(bool(path.entries) for path in self._paths) > 1 else ALPHA
        going = [(path, entry) for path in self._paths if (entry := path.candidate(self._busy)) is not None]
        for path, entry in going:
            if path.in_flight < at_once:
                return self._ask(path, entry)
        if going or self.in_flight() >= ALPHA or (left := self._left_over()) is None:
            return None
        return self._ask(*left)

    def slow(self, contact: Contact) -> None:
        """The soft timeout passed: its slot is free, its answer still counts."""
        entry = self._entries[contact]
        if entry.state is State.ASKED:
            entry.state = State.SLOW
            self._no_longer_busy(entry)

    def answered(self, contact: Contact, told: Iterable[Contact] = ()) -> None:
        """It answered, and named ``told``: for the path that asked it, and for those that have nobody yet."""
        entry = self._entries[contact]
        entry.state = State.ANSWERED
        self._busy.setdefault(contact.node_id, entry)
        paths = [path for path in self._paths if path is entry.asked_by or not path.entries]
        for number, other in enumerate(sorted(dict.fromkeys(told), key=self._rank)):
            self._hear_of(paths[number % len(paths)], other)

    def failed(self, contact: Contact) -> None:
        entry = self._entries[contact]
        entry.state = State.FAILED
        self._no_longer_busy(entry)

    def in_flight(self) -> int:
        """Queries that are neither answered nor slow."""
        return sum(entry.state is State.ASKED for entry in self._entries.values())

    def finished(self) -> bool:
        """No one left to ask, no one in flight, and somebody answered or nobody can any more."""
        if self.in_flight() or any(path.candidate(self._busy) is not None for path in self._paths):
            return False
        if self._left_over() is not None:
            return False
        states = {entry.state for entry in self._entries.values()}
        return State.ANSWERED in states or State.SLOW not in states

    def closest_answered(self) -> list[Contact]:
        """The ``replicas`` closest nodes that answered, one endpoint each."""
        return _one_per_node(self._closest(lambda state: state is State.ANSWERED))[: self._replicas]

    def answered_among_closest(self, count: int) -> list[Contact]:
        """Of the ``count`` closest contacts that have not failed, those that answered: unless somebody closer
        turns up, they are among the closest live nodes."""
        closest = self._closest(lambda state: state is not State.FAILED)[:count]
        return [contact for contact in closest if self._entries[contact].state is State.ANSWERED]

    def __len__(self) -> int:
        """Contacts that it holds."""
        return len(self._entries)

    def _rank(self, contact: Contact) -> Rank:
        return distance(contact.node_id, self._target), contact.endpoint

    def _hear_of(self, path: DisjointPath, contact: Contact) -> None:
        entry = self._entries.setdefault(contact, Entry(self._rank(contact), contact))
        dropped = path.hear_of(entry)
        if dropped is not None and not any(dropped in other.entries for other in self._paths):
            del self._entries[dropped.contact]

    def _ask(self, path: DisjointPath, entry: Entry) -> Contact:
        path.ask(entry)
        self._busy[entry.contact.node_id] = entry
        return entry.contact

    def _no_longer_busy(self, entry: Entry) -> None:
        if self._busy.get(entry.contact.node_id) is entry:
            del self._busy[entry.contact.node_id]

    def _left_over(self) -> tuple[DisjointPath, Entry] | None:
        """Of all paths together, the closest that none of them has asked, and a path that knows it."""
        in_order = sorted(self._entries.values(), key=lambda entry: entry.rank)
        entry = closest_to_ask(in_order, self._busy, self._replicas)
        if entry is None:
            return None
        knowing = (path for path in self._paths if entry in path.entries and path.asked < MAX_ASKED)
        path = next(knowing, None)
        return None if path is None else (path, entry)

    def _closest(self, wanted: Callable[[State], bool]) -> list[Contact]:
        chosen = [entry for entry in self._entries.values() if wanted(entry.state)]
        return [entry.contact for entry in sorted(chosen, key=lambda entry: entry.rank)]


def _one_per_node(contacts: Iterable[Contact]) -> list[Contact]:
    first: dict[bytes, Contact] = {}
    for contact in contacts:
        first.setdefault(contact.node_id, contact)
    return list(first.values())
