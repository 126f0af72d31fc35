"""The shortlist of one lookup, without IO: whom to ask next, and when the closest live nodes have answered.

A node known under both families is one entry per endpoint, but only its first to answer counts.
"""

from collections.abc import Callable, Iterable
from enum import Enum, auto

from dhtvpn.discovery.contact import Contact, distance

ALPHA = 4
"""Queries in flight that have not passed their soft timeout; the paper's alpha is 3."""

REPLICAS = 8
"""Closest live nodes that a lookup must have heard, and that store or push; BEP 5 uses 8."""

MAX_ENTRIES = 256
"""Contacts of one lookup; the farthest unasked one makes room."""

MAX_ASKED = 128
"""Queries of one lookup: 10 hostile nodes with 8 inventions each do not end it, a flood does."""


class State(Enum):
    """NEW -> ASKED -> ANSWERED or FAILED; an ASKED one that passes the soft timeout is SLOW until then."""

    NEW = auto()
    ASKED = auto()
    SLOW = auto()
    ANSWERED = auto()
    FAILED = auto()


class Shortlist:
    """Contacts by distance to ``target``, with their states."""

    def __init__(self, target: bytes, *, alpha: int = ALPHA, replicas: int = REPLICAS) -> None:
        self._target = target
        self._alpha, self._replicas = alpha, replicas
        self._states: dict[Contact, State] = {}
        self._asked = 0

    def add(self, contacts: Iterable[Contact]) -> None:
        """Take in contacts that the table or an answer gave."""
        for contact in contacts:
            self._states.setdefault(contact, State.NEW)
        if len(self._states) > MAX_ENTRIES:
            for contact in self._closest(lambda state: state is State.NEW)[::-1]:
                del self._states[contact]
                if len(self._states) <= MAX_ENTRIES:
                    break

    def next_to_ask(self) -> Contact | None:
        """The closest contact worth a query, marked ASKED; None while ALPHA are in flight or when none of
        the ``replicas`` closest live ones is left to ask."""
        if self.in_flight() >= self._alpha or self._asked >= MAX_ASKED:
            return None
        candidate = self._candidate()
        if candidate is not None:
            self._states[candidate] = State.ASKED
            self._asked += 1
        return candidate

    def slow(self, contact: Contact) -> None:
        """The soft timeout passed: its slot is free, its answer still counts."""
        if self._states.get(contact) is State.ASKED:
            self._states[contact] = State.SLOW

    def answered(self, contact: Contact) -> None:
        self._states[contact] = State.ANSWERED

    def failed(self, contact: Contact) -> None:
        self._states[contact] = State.FAILED

    def in_flight(self) -> int:
        """Queries that are neither answered nor slow."""
        return sum(state is State.ASKED for state in self._states.values())

    def finished(self) -> bool:
        """No one left to ask, no one in flight, and somebody answered or nobody can any more."""
        if self.in_flight() or (self._asked < MAX_ASKED and self._candidate() is not None):
            return False
        states = set(self._states.values())
        return State.ANSWERED in states or State.SLOW not in states

    def closest_answered(self) -> list[Contact]:
        """The ``replicas`` closest nodes that answered, one endpoint each."""
        return _one_per_node(self._closest(lambda state: state is State.ANSWERED))[: self._replicas]

    def answered_among_closest(self, count: int) -> list[Contact]:
        """Of the ``count`` closest contacts that have not failed, those that answered: unless somebody closer
        turns up, they are among the closest live nodes."""
        closest = self._closest(lambda state: state is not State.FAILED)[:count]
        return [contact for contact in closest if self._states[contact] is State.ANSWERED]

    def _candidate(self) -> Contact | None:
        """The closest NEW contact, unless ``replicas`` closer nodes have answered or are being asked."""
        live: set[bytes] = set()
        for contact in self._closest(lambda state: state is not State.FAILED):
            state = self._states[contact]
            if state is State.NEW and contact.node_id not in live:
                return contact
            if state in (State.ASKED, State.ANSWERED):
                live.add(contact.node_id)
            if len(live) >= self._replicas:
                return None
        return None

    def _closest(self, wanted: Callable[[State], bool]) -> list[Contact]:
        chosen = [contact for contact, state in self._states.items() if wanted(state)]
        return sorted(chosen, key=lambda c: (distance(c.node_id, self._target), c.endpoint))


def _one_per_node(contacts: Iterable[Contact]) -> list[Contact]:
    first: dict[bytes, Contact] = {}
    for contact in contacts:
        first.setdefault(contact.node_id, contact)
    return list(first.values())
