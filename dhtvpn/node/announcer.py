"""Publishes this node's endpoint record: at once when it changes, and again before storing nodes lose it.

Only the publisher republishes (a holder that republishes can roll a newer value back). While the record
stays the same, the very same envelope is stored again: nobody has to be told of it, and nothing about the
times of publication can be read from it. What goes out under two epochs has nothing in common: each has its
own topic keys, shift of sequence numbers and expiry, and the first publication under the next epoch comes
at a random moment of the ten minutes before it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dhtvpn.discovery.directory import Directory
from dhtvpn.errors import DecodeError
from dhtvpn.identity import Identity
from dhtvpn.node.patience import happens
from dhtvpn.records.envelope import MAX_SEQUENCE, seal
from dhtvpn.records.epochs import EPOCH_S, MARGIN_S, expiry_of, publish_epochs
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.topic import Topic

log = logging.getLogger(__name__)

REPUBLISH_S = 1800.0
"""New nodes come close to the key and old ones leave: of 8 storing nodes that stay for an hour each, all are
gone after half an hour once in 10,000 times, and whoever reads meanwhile has the record already."""

RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses after a publication that no other node confirmed; the last one repeats."""

GOODBYE_DEADLINE_S = 1.0
CHECK_S = 20.0
"""How often the clock is looked at while nothing is due: it may be set, or the machine suspended."""

RAISE_PAUSE_S = 60.0
"""Sequence numbers are raised above those that others hold at most this often: two machines with one
identity would otherwise outdo each other without end."""


@dataclass
class _Place:
    """One topic in which the record is kept published."""

    topic: Topic
    due: float
    """Seconds of the event loop's clock, which nobody sets."""
    content: EndpointRecord | None = None
    """What ``envelope`` says."""
    envelope: bytes = b""
    failures: int = 0
    is_open: bool = True
    """Whether the record is to be there. A closed place keeps its envelope: another one with the same
    sequence number would be refused should the place open again."""


class Announcer:
    """Owns the sequence number and the times of publication."""

    def __init__(
        self,
        *,
        directory: Directory,
        identity: Identity,
        topic_at: Callable[[int], Topic],
        record: Callable[[], EndpointRecord],
        random_bytes: Callable[[int], bytes],
        published: Callable[[int], None],
        roster_open: Callable[[int], bool] = lambda _: True,
        more_topics: Callable[[int], Sequence[Topic]] = lambda _: (),
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """``topic_at``: the roster topic of an epoch; ``roster_open``: whether there is room for one more in
        it; ``more_topics``: under which others we are to be found."""
        self._directory = directory
        self._identity = identity
        self._topic_at = topic_at
        self._roster_open, self._more_topics = roster_open, more_topics
        self._record = record
        self._random_bytes = random_bytes
        self._published = published
        self._unix_time = unix_time
        self._wanted = asyncio.Event()
        self._places: dict[bytes, _Place] = {}
        self._content: EndpointRecord | None = None
        self._raised_at = float("-inf")
        self.sequence = 0
        """Of the newest envelope of this node, in this run or one before: kept on disk by the owner."""
        self.confirmed: dict[int, int] = {}
        """Epoch -> number of other nodes that confirmed our record, as of the last publication."""

    def announce(self, *, again: bool = False) -> None:
        """Publish again soon: the record has changed, or the directory has new contacts. ``again``: under a
        new sequence number even if it has not changed, so that everybody is told that we are there."""
        if again:
            self._content_is_new()
        self._wanted.set()

    def _content_is_new(self) -> None:
        self._content = None
        for place in self._places.values():
            place.content = None

    def seen_own(self, sequence: int) -> None:
        """The directory holds a record of ours with this number: the next one has to be above it, even
        where our clock has been set back and the disk has been lost."""
        now = asyncio.get_running_loop().time()
        if self.sequence < sequence < MAX_SEQUENCE // 2 and now - self._raised_at >= RAISE_PAUSE_S:
            self._raised_at = now
            self.sequence = sequence
            self.announce(again=True)

    async def run(self) -> None:
        """Publish until cancelled."""
        everything = True
        while True:
            self._wanted.clear()
            due = self._due(everything)
            if due:
                await self._publish(due)
            everything = await self._wait()

    def in_roster(self, epoch: int) -> bool:
        """Whether our record is in the roster topic of ``epoch``."""
        place = self._places.get(self._topic_at(epoch).dht_key)
        return place is not None and place.envelope != b""

    def sealed(self, topic: Topic, expires: int) -> bytes | None:
        """Our present record for somebody's door; None before it has been published anywhere.

        Its sequence number is that of the moment, so that every call is news to the storing nodes. Readers
        remember no number of a call, or they would refuse our published record, which has a lower one."""
        if self._content is None:
            return None
        sequence = max(self.sequence, int(self._unix_time() * 1000))
        return seal(self._content, topic, self._identity, sequence, expires, self._random_bytes)

    async def goodbye(self, record: EndpointRecord) -> None:
        """Publish ``record``, which says that we leave, wherever we can be found, without waiting long."""
        self._next_sequence()
        places = [place for place in self._places.values() if place.envelope] or self._due(everything=True)
        self._content = record
        try:
            await asyncio.wait_for(self._publish(places), GOODBYE_DEADLINE_S)
        except TimeoutError:
            log.info("left without a confirmation from the directory")

    def _due(self, everything: bool) -> list[_Place]:
        """The places to publish at now; all that are open when ``everything``, or when the record is new."""
        record = self._record()
        if record != self._content:
            self._content, everything = record, True
            self._next_sequence()
        self._follow_epochs()
        now = asyncio.get_running_loop().time()
        return [p for p in self._places.values() if p.due <= now or (everything and p.envelope and p.is_open)]

    def _follow_epochs(self) -> None:
        """Open the topics in which we are to be found from now on, and leave those that nobody reads."""
        now, loop_now = self._unix_time(), asyncio.get_running_loop().time()
        epochs = publish_epochs(now)
        wanted: dict[bytes, Topic] = {}
        for epoch in epochs:
            roster = self._topic_at(epoch)
            place = self._places.get(roster.dht_key)
            if (place is not None and place.envelope) or self._roster_open(epoch):
                wanted[roster.dht_key] = roster
            wanted |= {topic.dht_key: topic for topic in self._more_topics(epoch)}
        for key, place in list(self._places.items()):
            if expiry_of(place.topic.epoch) <= now or (key not in wanted and not place.envelope):
                del self._places[key]
            elif (key in wanted) != place.is_open:
                place.is_open = key in wanted
                place.due = loop_now if place.is_open else float("inf")
        for key, topic in wanted.items():
            if key not in self._places:
                self._places[key] = _Place(topic, loop_now + self._first_pause(topic.epoch, now))
        for place in self._places.values():
            if place.topic.epoch == epochs[0] and not place.failures and not place.envelope:
                place.due = loop_now  # it has begun, perhaps because the clock was set
        self.confirmed = {epoch: count for epoch, count in self.confirmed.items() if epoch in epochs}

    def _first_pause(self, epoch: int, now: float) -> float:
        """None in the current epoch; in the next one a random part of the time before it starts."""
        return max(0.0, epoch * EPOCH_S - MARGIN_S - now) * self._fraction()

    async def _publish(self, places: list[_Place]) -> None:
        """Store our envelope at each of ``places``, sealed anew where the record has changed."""
        counts = await asyncio.gather(*(self._publish_at(place) for place in places))
        if counts:
            self._published(min(counts))

    async def _publish_at(self, place: _Place) -> int:
        topic, content = place.topic, self._content
        if content is None:
            return 0
        if place.content != content:
            place.envelope = seal(
                content, topic, self._identity, self.sequence, expiry_of(topic.epoch), self._random_bytes
            )
            place.content = content
        try:
            stores = await self._directory.publish(topic.dht_key, place.envelope)
        except DecodeError as error:
            # The clock jumped since it was read, as after a suspend: the next round is soon.
            log.warning("our own record is refused (%s): trying again", error)
            stores = 0
        place.failures = 0 if stores else place.failures + 1
        pause = REPUBLISH_S * (0.75 + 0.25 * self._fraction())
        if place.failures:
            pause = RETRY_S[min(place.failures, len(RETRY_S)) - 1]
        place.due = asyncio.get_running_loop().time() + pause
        self.confirmed[topic.epoch] = stores
        return stores

    async def _wait(self) -> bool:
        """Until a place is due (False) or somebody has news (True); the clock is looked at meanwhile."""
        while True:
            self._follow_epochs()
            now = asyncio.get_running_loop().time()
            left = min((place.due for place in self._places.values()), default=now + CHECK_S) - now
            if left <= 0:
                return False
            if await happens(self._wanted, min(left, CHECK_S)):
                return True

    def _next_sequence(self) -> None:
        self.sequence = max(self.sequence + 1, int(self._unix_time() * 1000))

    def _fraction(self) -> float:
        """A random number from 0 to 1."""
        return int.from_bytes(self._random_bytes(4), "big") / (1 << 32)
