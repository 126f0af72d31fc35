"""The asking side of a watch: look a topic up, subscribe at some of its storing nodes, and renew.

What it costs at rest is decided here. A writer stores at the REPLICAS closest nodes, a watcher subscribes at
the WATCHED closest: while no more than REPLICAS - WATCHED nodes come closer between two polls, each of those
has what the writer stores, and one of them suffices. A renewal says "I have what you gave me" in one
octet; it also keeps the NAT mapping towards the storing node open.
"""

import asyncio
from collections.abc import Callable

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.queries import Queries, Topic
from dhtvpn.discovery.reader import Reader
from dhtvpn.discovery.storage import Storage
from dhtvpn.discovery.tasks import OwnedTasks

WATCHED = 3
"""Storing nodes at which a topic is watched: a push comes if one of them is alive and honest."""

POLL_S = 900.0
"""A watch looks the topic up this often besides the pushes: nodes come and go."""

SPARSE_POLL_S = 60.0
"""The same while fewer than WATCHED nodes have granted a lease: the network is small or in trouble."""

RENEW_S = 25.0
"""A watch renews its subscriptions this often: within the 30 s after which NATs may forget a UDP mapping
(RFC 4787 section 4.3 asks for two minutes, many keep less), and twice within the lease."""

NO_CONTACTS_RETRY_S = 0.5
"""A watch that found nobody looks again this soon: bootstrapping may be under way. Costs no datagram."""

RESUBSCRIBE_S = 3.0
"""A watch without a single lease looks for other storing nodes this soon."""


class Watching:
    """Keeps the watches of one directory fed."""

    def __init__(
        self,
        queries: Queries,
        storage: Storage,
        tasks: OwnedTasks,
        *,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
        poll_s: float,
        renew_s: float,
    ) -> None:
        self._queries, self._storage, self._tasks = queries, storage, tasks
        self._monotonic, self._unix_time = monotonic, unix_time
        self._poll_s, self._renew_s = poll_s, renew_s

    async def look_up(self, reader: Reader) -> list[Contact]:
        """What is stored here, then everything that the network has; returns the closest live nodes."""
        for stored in self._storage.get(reader.dht_key, self._unix_time()):
            reader.offer(stored.envelope, self._unix_time())
        return await self._queries.closest(reader.dht_key, self._topic(reader))

    async def keep(self, reader: Reader) -> None:
        """Look up and subscribe at every poll or wake-up; between polls renew the subscriptions."""
        leased: list[Contact] = []
        while True:
            closest = await self.look_up(reader)
            looked_up_at = self._monotonic()
            while True:
                leased = await self._subscribe(reader, closest, leased)
                poll_s = self._poll_s if len(leased) >= WATCHED else min(self._poll_s, SPARSE_POLL_S)
                left_s = looked_up_at + poll_s - self._monotonic()
                if not leased:
                    left_s = min(left_s, RESUBSCRIBE_S if closest else NO_CONTACTS_RETRY_S)
                woken = await reader.sleep(max(0.0, min(left_s, self._renew_s)))
                if woken or not leased or self._monotonic() >= looked_up_at + poll_s:
                    break

    def _topic(self, reader: Reader) -> Topic:
        return Topic(reader.newest, lambda envelope: reader.offer(envelope, self._unix_time()))

    async def _subscribe(
        self, reader: Reader, closest: list[Contact], leased: list[Contact]
    ) -> list[Contact]:
        """Renew or subscribe at the closest nodes until WATCHED of them have granted a lease, asking as many
        at once as are still missing; returns those."""
        reader.forget_ended(self._monotonic())
        waiting, granted = list(closest), list[Contact]()
        while waiting and len(granted) < WATCHED:
            missing = WATCHED - len(granted)
            asked, waiting = waiting[:missing], waiting[missing:]
            tasks = [
                self._tasks.spawn(self._subscribe_at(reader, contact, renew=contact in leased))
                for contact in asked
            ]
            answers = await asyncio.gather(*tasks)
            granted += [contact for contact, lease in zip(asked, answers, strict=True) if lease]
        return granted

    async def _subscribe_at(self, reader: Reader, contact: Contact, *, renew: bool) -> bool:
        """Pushes may overtake the reply, so they are welcome from the moment we ask."""
        asked_at = self._monotonic()
        reader.subscribe(contact.endpoint, asked_at + self._renew_s)
        lease_s = await self._queries.watch(contact, self._topic(reader), renew=renew)
        if lease_s:
            reader.subscribe(contact.endpoint, asked_at + lease_s)
        return lease_s > 0
