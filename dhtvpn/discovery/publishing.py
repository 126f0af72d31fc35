"""Storing an envelope while the lookup for its storing nodes still runs.

A store needs the token that came with a node's answer, so it can follow that answer at once. Those closest
to the key, at which others watch, get it one or two round trips before the lookup is sure of all of them.
"""

import asyncio
from collections.abc import Callable, Iterable

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.shortlist import Shortlist

EARLY = 3
"""Closest contacts that get the envelope as soon as they have answered. Few: closer ones may still turn up,
and then it is stored once more than needed."""


class Publication:
    """One envelope on its way. ``store`` starts a store at a contact; the task belongs to its maker."""

    def __init__(self, store: "Callable[[Contact], asyncio.Task[bool]]") -> None:
        self._store = store
        self._stores: dict[Contact, asyncio.Task[bool]] = {}

    def begin(self, known: Iterable[Contact]) -> None:
        """Those of the closest known contacts whose tokens are at hand need no question before."""
        self._store_at(known)

    def progress(self, shortlist: Shortlist) -> None:
        """The lookup has heard somebody."""
        self._store_at(shortlist.answered_among_closest(EARLY))

    async def finish(self, closest: Iterable[Contact]) -> int:
        """The lookup has ended: store at the rest, and return how many of ``closest`` have confirmed."""
        contacts = list(closest)
        self._store_at(contacts)
        return sum(await asyncio.gather(*(self._stores[contact] for contact in contacts)))

    def _store_at(self, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact not in self._stores:
                self._stores[contact] = self._store(contact)
