"""Watches the network's topics and keeps the roster of its members.

Whatever a directory yields is opened here: a record that fails any check is dropped and counted by its
reason, one that passes is offered to the roster, and only what is news there goes to the node.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import aclosing

from dhtvpn.discovery.directory import Directory
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import OpenedRecord, open_record
from dhtvpn.records.epochs import lookup_epochs
from dhtvpn.records.roster import Change, Roster
from dhtvpn.records.topic import Topic

log = logging.getLogger(__name__)

CHECK_S = 20.0
"""How often the epoch is looked at, and expired records leave the roster."""


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
        record_seen: Callable[[OpenedRecord], None] = lambda _: None,
    ) -> None:
        """``record_seen`` gets every good record, news or not, after ``member_found``."""
        self._directory = directory
        self._topic_at = topic_at
        self._roster = roster
        self._own_node_key = own_node_key
        self._member_found = member_found
        self._member_expired = member_expired
        self._drops = drops
        self._record_seen = record_seen
        self._watches: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                self._follow_epochs()
                for node_key in self._roster.expire(time.time()):
                    self._member_expired(node_key)
                await asyncio.sleep(CHECK_S)
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

        await asyncio.gather(*(look(epoch) for epoch in lookup_epochs(time.time())))

    def recall(self, envelope: bytes) -> None:
        """An envelope from an earlier run. Of no use unless it is from an epoch that is looked in now."""
        for epoch in lookup_epochs(time.time()):
            topic = self._topic_at(epoch)
            with contextlib.suppress(DecodeError):
                open_record(envelope, topic, time.time())
                self._offer(envelope, topic)
                return

    def _follow_epochs(self) -> None:
        wanted = lookup_epochs(time.time())
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
            opened = open_record(envelope, topic, time.time())
        except DecodeError as error:
            self._drops.count("record", error.reason)
            return
        if opened.record.node_key == self._own_node_key:
            return
        change = self._roster.offer(opened, time.time())
        if change in (Change.STALE, Change.FULL):
            self._drops.count("record", change.value)
            return
        if change in (Change.NEW, Change.UPDATED):
            self._member_found(opened)
        self._record_seen(opened)
