"""Watches the network's topics and keeps the roster of its members.

Whatever a directory yields is opened here: a record that fails any check is dropped and counted by its
reason, one that passes is offered to the roster, and only what is news there goes to the node.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing

from dhtvpn.discovery.directory import Directory
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import OpenedRecord, open_record
from dhtvpn.records.epochs import lookup_epochs, next_change
from dhtvpn.records.roster import MAX_MEMBERS, Change, Roster
from dhtvpn.records.topic import Topic

log = logging.getLogger(__name__)

CHECK_S = 20.0
"""How often expired records leave the roster, and the epoch is looked at: at the latest, for the clock may
be set. A change that the clock announces is followed at that moment."""

TICK_S = 0.001
"""Sleep this much past a change, so that the clock is beyond it."""


class Finder:
    """One watch for each topic that is read."""

    def __init__(
        self,
        *,
        directory: Directory,
        topic_at: Callable[[int], Topic],
        roster: Roster,
        own_node_key: bytes,
        member_found: Callable[[OpenedRecord], None],
        member_expired: Callable[[bytes], None],
        drops: Drops,
        own_record_seen: Callable[[int], None] = lambda _: None,
        more_topics: Callable[[int], Sequence[Topic]] = lambda _: (),
        caller_found: Callable[[OpenedRecord], None] = lambda _: None,
        roster_changed: Callable[[], None] = lambda: None,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """``topic_at``: the roster topic of an epoch. ``more_topics``: those under which others call us;
        whoever does so goes to ``caller_found``, news or not. ``roster_changed``: :meth:`members_in` has
        another answer."""
        self._directory = directory
        self._topic_at = topic_at
        self._more_topics = more_topics
        self._roster = roster
        self._own_node_key = own_node_key
        self._member_found = member_found
        self._caller_found = caller_found
        self._roster_changed = roster_changed
        self._member_expired = member_expired
        self._drops = drops
        self._own_record_seen = own_record_seen
        self._unix_time = unix_time
        self._watches: dict[bytes, asyncio.Task[None]] = {}
        self._present: dict[int, set[bytes]] = {}
        self._running = False

    async def run(self) -> None:
        """Watch until cancelled."""
        self._running = True
        try:
            while True:
                self.follow()
                for node_key in self._roster.expire(self._unix_time()):
                    self._member_expired(node_key)
                await asyncio.sleep(min(CHECK_S, next_change(self._unix_time()) + TICK_S))
                for task in self._watches.values():
                    if task.done():
                        task.result()
        finally:
            self._running = False
            for task in self._watches.values():
                task.cancel()
            await asyncio.gather(*self._watches.values(), return_exceptions=True)

    async def look_up(self) -> None:
        """Ask the directory once, now, in every epoch that is looked in."""

        async def look(epoch: int) -> None:
            topic = self._topic_at(epoch)
            async with aclosing(self._directory.lookup(topic.dht_key)) as envelopes:
                async for envelope in envelopes:
                    self._offer(envelope, topic)

        await asyncio.gather(*(look(epoch) for epoch in lookup_epochs(self._unix_time())))

    def members_in(self, epoch: int, but: bytes = b"") -> int:
        """How many members, ourselves included, have been seen in the roster topic of ``epoch``; one who
        says that it leaves counts no more. ``but``: without this one."""
        present = self._present.get(epoch, set())
        return len(present) - (but in present)

    def follow(self) -> None:
        """Watch the topics that are to be read now, and no others."""
        if not self._running:
            return
        epochs = lookup_epochs(self._unix_time())
        wanted: dict[bytes, tuple[Topic, bool]] = {}
        for epoch in epochs:
            for topic in self._more_topics(epoch):
                wanted[topic.dht_key] = (topic, True)
            roster = self._topic_at(epoch)
            wanted[roster.dht_key] = (roster, False)
        for key in [key for key in self._watches if key not in wanted]:
            self._watches.pop(key).cancel()
        for key, (topic, is_call) in wanted.items():
            if key not in self._watches:
                name = f"watch epoch {topic.epoch}"
                self._watches[key] = asyncio.create_task(self._watch(topic, is_call), name=name)
        self._present = {epoch: keys for epoch, keys in self._present.items() if epoch in epochs}

    async def _watch(self, topic: Topic, is_call: bool) -> None:
        async with aclosing(self._directory.watch(topic.dht_key)) as envelopes:
            async for envelope in envelopes:
                self._offer(envelope, topic, is_call=is_call)

    def _offer(self, envelope: bytes, topic: Topic, *, is_call: bool = False) -> None:
        try:
            opened = open_record(envelope, topic, self._unix_time())
        except DecodeError as error:
            self._drops.count("record", error.reason)
            return
        if not is_call:
            self._count(opened, topic.epoch)
        if opened.record.node_key == self._own_node_key:
            self._own_record_seen(opened.sequence)
            return
        if is_call:
            if self._roster.admits(opened, self._unix_time()) and not opened.record.leaving:
                self._caller_found(opened)
            return
        change = self._roster.offer(opened, self._unix_time())
        if change in (Change.STALE, Change.FULL):
            self._drops.count("record", change.value)
        elif change in (Change.NEW, Change.UPDATED):
            self._member_found(opened)

    def _count(self, opened: OpenedRecord, epoch: int) -> None:
        present = self._present.setdefault(epoch, set())
        before = len(present)
        if opened.record.leaving:
            present.discard(opened.record.node_key)
        elif len(present) < MAX_MEMBERS:
            present.add(opened.record.node_key)
        if len(present) != before:
            self._roster_changed()
