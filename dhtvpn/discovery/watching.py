"""The asking side of a watch: look a topic up, subscribe at its storing nodes, and renew."""

import asyncio
from collections.abc import Callable

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.queries import Queries, Topic
from dhtvpn.discovery.reader import Reader
from dhtvpn.discovery.storage import Storage
from dhtvpn.discovery.tasks import OwnedTasks

POLL_S = 30.0
"""A watch looks the topic up this often besides the pushes, as a safety net."""

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
        while True:
            closest = await self.look_up(reader)
            poll_at = self._monotonic() + self._poll_s
            while True:
                leases = await self._subscribe(reader, closest)
                left_s = poll_at - self._monotonic()
                if not leases:
                    left_s = min(left_s, RESUBSCRIBE_S if closest else NO_CONTACTS_RETRY_S)
                woken = await reader.sleep(min(left_s, self._renew_s))
                if woken or not leases or self._monotonic() >= poll_at:
                    break

    def _topic(self, reader: Reader) -> Topic:
        return Topic(reader.newest, lambda envelope: reader.offer(envelope, self._unix_time()))

    async def _subscribe(self, reader: Reader, closest: list[Contact]) -> int:
        """Subscribe or renew at each of ``closest``; returns how many granted a lease."""
        reader.forget_ended(self._monotonic())
        tasks = [self._tasks.spawn(self._subscribe_at(reader, contact)) for contact in closest]
        return sum(await asyncio.gather(*tasks))

    async def _subscribe_at(self, reader: Reader, contact: Contact) -> bool:
        """Pushes may overtake the reply, so they are welcome from the moment we ask."""
        asked_at = self._monotonic()
        reader.subscribe(contact.endpoint, asked_at + self._renew_s)
        lease_s = await self._queries.watch(contact, self._topic(reader))
        if lease_s:
            reader.subscribe(contact.endpoint, asked_at + lease_s)
        return lease_s > 0
