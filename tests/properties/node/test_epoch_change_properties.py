"""No moment around the change of epochs at which two members cannot find each other, whatever is in between:
clocks up to ten minutes apart in either direction, both orders of joining, before and after the hour."""

import asyncio
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run

from dhtvpn.discovery.memory import MemoryDirectory
from dhtvpn.drops import Drops
from dhtvpn.identity import Identity
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.finder import Finder
from dhtvpn.records.envelope import OpenedRecord
from dhtvpn.records.epochs import OVERLAP_S
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topic import Topic

SECRET = bytes([7]) * 32
HOUR = 500_000 * 3600.0
SOON_S = 2.0  # seconds of virtual time in which members find each other; nothing here takes longer than 0
WINDOW_S = 1500.0  # around the hour


class Member:
    """One member with a clock of its own, through a directory that everyone shares."""

    def __init__(self, directory: MemoryDirectory, seed: int, began: float, clock_s: float) -> None:
        self._began, self._clock_s = began, clock_s
        self.identity = Identity.from_seed(bytes([seed]) * 32)
        self.found: list[OpenedRecord] = []
        self.announcer = Announcer(
            directory=directory,
            identity=self.identity,
            topic_at=_topic_at,
            record=self._record,
            random_bytes=os.urandom,
            published=lambda _: None,
            unix_time=self.unix_time,
        )
        self.finder = self._make_finder(directory)
        self._directory = directory

    def unix_time(self) -> float:
        return self._began + asyncio.get_running_loop().time() - 1000.0 + self._clock_s

    async def join(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await asyncio.gather(self.announcer.run(), self.finder.run())

    async def finds_now(self) -> set[bytes]:
        """Whom a member with this clock that has just been started finds."""
        fresh = self._make_finder(self._directory)
        self.found.clear()
        await fresh.look_up()
        return {opened.record.node_key for opened in self.found}

    def _make_finder(self, directory: MemoryDirectory) -> Finder:
        return Finder(
            directory=directory,
            topic_at=_topic_at,
            roster=Roster(),
            own_node_key=self.identity.node_key,
            member_found=self.found.append,
            member_expired=lambda _: None,
            drops=Drops(),
            unix_time=self.unix_time,
        )

    def _record(self) -> EndpointRecord:
        return EndpointRecord(self.identity.node_key, "m", bytes(16), (), 0, 1, 0)


def _topic_at(epoch: int) -> Topic:
    return _TOPICS.setdefault(epoch, Topic.derive(SECRET, epoch))


_TOPICS: dict[int, Topic] = {}


@settings(max_examples=150, deadline=None)
@given(
    began=st.floats(-WINDOW_S, WINDOW_S),
    skew=st.floats(-OVERLAP_S, OVERLAP_S),
    share=st.floats(0, 1),
    delays=st.tuples(st.floats(0, WINDOW_S), st.floats(0, WINDOW_S)),
    looks=st.lists(st.floats(1, 2000), max_size=4),
)
def test_two_members_find_each_other_at_any_time(
    began: float, skew: float, share: float, delays: tuple[float, float], looks: list[float]
) -> None:
    """The storing nodes' clock is the true one; the members' are off by parts of ``skew``."""
    run(_scenario(HOUR + began, (skew * share, -skew * (1 - share)), delays, looks))


async def _scenario(
    began: float, clocks: tuple[float, float], delays: tuple[float, float], looks: list[float]
) -> None:
    loop = asyncio.get_running_loop()
    directory = MemoryDirectory(unix_time=lambda: began + loop.time() - 1000.0)
    one, two = (Member(directory, 1 + i, began, clock) for i, clock in enumerate(clocks))
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(member.join(delay)) for member, delay in zip((one, two), delays, strict=True)
    ]
    await asyncio.sleep(max(delays) + SOON_S)
    try:
        assert {opened.record.node_key for opened in one.found} == {two.identity.node_key}
        assert {opened.record.node_key for opened in two.found} == {one.identity.node_key}
        for pause in looks:
            await asyncio.sleep(pause)
            assert await one.finds_now() == {two.identity.node_key}
            assert await two.finds_now() == {one.identity.node_key}
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results
