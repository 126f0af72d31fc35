"""A watch without pushes: ask the closest storing nodes again and again. For where pushes are switched off.

It costs more at rest than a subscription, and a change is seen after half of ASK_S on average. A node that
has nothing new answers in one small datagram.
"""

import asyncio
from collections.abc import Awaitable, Callable

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.queries import Queries, Topic
from dhtvpn.discovery.reader import Reader
from dhtvpn.discovery.tasks import OwnedTasks
from dhtvpn.discovery.watching import NO_CONTACTS_RETRY_S

ASK_S = 2.0
"""Between two questions: a member that has just stored its record is found in this time and a round trip."""

ASKED = 3
"""Storing nodes that are asked: one of them is alive, honest and has the record."""

LookUp = Callable[[Reader], Awaitable[list[Contact]]]


class Polling:
    """Keeps the watches of one directory fed. ``look_up`` does one lookup for a reader and returns the
    closest live nodes; it is repeated after ``poll_s``, when the reader is woken, and when none of them
    answers."""

    def __init__(
        self,
        queries: Queries,
        tasks: OwnedTasks,
        look_up: LookUp,
        *,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
        poll_s: float,
    ) -> None:
        self._queries, self._tasks, self._look_up = queries, tasks, look_up
        self._monotonic, self._unix_time, self._poll_s = monotonic, unix_time, poll_s

    async def keep(self, reader: Reader) -> None:
        """Until cancelled."""
        while True:
            closest = await self._look_up(reader)
            again_at = self._monotonic() + self._poll_s
            while not await reader.sleep(ASK_S if closest else NO_CONTACTS_RETRY_S):
                if self._monotonic() >= again_at or not await self._ask(reader, closest):
                    break

    async def _ask(self, reader: Reader, closest: list[Contact]) -> bool:
        """Whether anybody answered."""
        topic = Topic(reader.newest, lambda envelope: reader.offer(envelope, self._unix_time()))
        asked = [self._tasks.spawn(self._queries.find(contact, topic)) for contact in closest[:ASKED]]
        answers = await asyncio.gather(*asked)
        return any(answer is not None for answer in answers)
