"""How often a member asks the BitTorrent DHT: announcer, finder and directory as they run in a node.

In virtual time, over several changes of epoch. What that costs at the wire: tests/netns/test_mainline.py.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from virtual_time import VirtualTimeLoop

sys.path.insert(0, str(Path(__file__).parents[1] / "discovery"))
from discovery_simulation import Network
from nacl.signing import SigningKey
from simulated_items import SimulatedItems

from dhtvpn.discovery.mainline import MainlineDirectory
from dhtvpn.drops import Drops
from dhtvpn.identity import Identity
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.finder import Finder
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topics import NetworkTopics

HOUR = 3600.0
HOURS = 6


class CountedItems:
    """One member's use of the items that all share."""

    def __init__(self, items: SimulatedItems) -> None:
        self._items = items
        self.asked: Counter[str] = Counter()

    def get(self, public_key: bytes, salt: bytes) -> AsyncGenerator[bytes, None]:
        self.asked["get"] += 1
        return self._items.get(public_key, salt)

    async def put(self, signing_key: SigningKey, salt: bytes, value: bytes) -> int:
        self.asked["put"] += 1
        return await self._items.put(signing_key, salt, value)


def member(
    items: CountedItems, number: int, network: Network, relaxed: bool
) -> list[Coroutine[Any, Any, Any]]:
    """What one member does for as long as it runs."""
    topics = NetworkTopics(bytes(32))
    directory = MainlineDirectory(
        items, topics.by_dht_key, unix_time=network.unix_time, relaxed=lambda: relaxed
    )
    identity = Identity.from_seed(bytes([number]) * 32)
    record = EndpointRecord(identity.node_key, "member", bytes(16), (), 0, 1, 0)
    announcer = Announcer(
        directory=directory,
        identity=identity,
        topic_at=topics.roster,
        record=lambda: record,
        random_bytes=os.urandom,
        published=lambda _: None,
        unix_time=network.unix_time,
    )
    finder = Finder(
        directory=directory,
        topic_at=topics.roster,
        roster=Roster(),
        own_node_key=identity.node_key,
        member_found=lambda _: None,
        member_expired=lambda _: None,
        drops=Drops(),
        unix_time=network.unix_time,
    )
    return [announcer.run(), finder.run()]


@pytest.mark.parametrize(
    ("relaxed", "gets"), [(False, 170), (True, 75)], ids=["alone", "beside a DHT of ours"]
)
def test_what_a_member_at_rest_asks_in_an_hour(relaxed: bool, gets: int) -> None:
    async def scenario() -> None:
        network, items = Network(latency_s=0.05), SimulatedItems()
        counted = [CountedItems(items) for _ in range(2)]
        tasks = [
            asyncio.create_task(run)
            for number, own in enumerate(counted, 1)
            for run in member(own, number, network, relaxed)
        ]
        await asyncio.sleep(600)
        for own in counted:
            own.asked.clear()
        await asyncio.sleep(HOURS * HOUR)
        for own in counted:
            assert HOURS * gets / 2 < own.asked["get"] < HOURS * gets, own.asked
            assert HOURS * 4 <= own.asked["put"] <= HOURS * 10, own.asked
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await network.close()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(scenario())
