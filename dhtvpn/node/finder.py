"""Watches the network's topics and keeps the roster of its members.

Whatever a directory yields is opened here: a record that fails any check is dropped and counted by its
reason, one that passes is offered to the roster, and only what is news there goes to the node.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing

from dhtvpn.discovery.directory import Directory
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import OpenedRecord, open_record
from dhtvpn.records.epochs import lookup_epochs, next_change
from dhtvpn.records.roster import Change, Roster
from dhtvpn.records.topic import Topic

log = logging.getLogger(__name__)

CHECK_S = 20.0
"""How often expired records leave the roster, and the epoch is looked at: at the latest, for the clock may
be set. A change that the clock announces is followed at that moment."""

TICK_S = 0.001
"""Sleep this much past a change, so that the clock is beyond it."""


class Finder:
    """One watch for each epoch that is looked in."""

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
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._topic_at = topic_at
        self._roster = roster
        self._own_node_key = own_node_key
        self._member_found = member_found
        self._member_expired = member_expired
        self._drops = drops
        self._own_record_seen = own_record_seen
        self._unix_time = unix_time
        self._watches: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                self._follow_epochs()
                for node_key in self._roster.expire(self._unix_time()):
                    self._member_expired(node_key)
                await asyncio.sleep(min(CHECK_S, next_change(self._unix_time()) + TICK_S))
                for task in self._watches.values():
                    if task.done():
                        task.result()
        finally:
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

    def _follow_epochs(self) -> None:
        wanted = lookup_epochs(self._unix_time())
        for epoch in [epoch for epoch in self._watches if epoch not in wanted]:
            self._watches.pop(epoch).cancel()
        for epoch in wanted:
            if epoch not in self._watches:
                self._watches[epoch] = asyncio.create_task(self._watch(epoch), name=f"watch epoch {epoch}")

    async def _watch(self, epoch: int) -> None:
        topic = self._topic_at(epoch)
        async with aclosing(self._directory.watch(topic.dht_key)) as envelopes:
            async for envelope in envelopes:
                self._offer(envelope, topic)

    def _offer(self, envelope: bytes, topic: Topic) -> None:
        try:
            opened = open_record(envelope, topic, self._unix_time())
        except DecodeError as error:
            self._drops.count("record", error.reason)
            return
        if opened.record.node_key == self._own_node_key:
            self._own_record_seen(opened.sequence)
            return
        change = self._roster.offer(opened, self._unix_time())
        if change in (Change.STALE, Change.FULL):
            self._drops.count("record", change.value)
        elif change in (Change.NEW, Change.UPDATED):
            self._member_found(opened)
