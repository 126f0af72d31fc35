"""Lookups and publications among DHT nodes on loopback, after a part of them was killed.

Every node is a directory on a UDP socket of its own, at its own address of 127.0.0.0/8, in a /24 of its own.
All share this process: what is measured is rounds and timeouts, and the processor time of asker and asked.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeVar

from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.lab.discovery.dht_nodes import PORT, DhtNode, enter
from dhtvpn.records.envelope import seal
from dhtvpn.records.epochs import epoch_at
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.topic import Topic

AT_ONCE = 4
"""Lookups under way at the same time: the processor is shared with all that answer."""

SETTLE_S = 1.0
LOOKUP_DEADLINE_S = 10.0
"""One that takes longer is given up: a record that has not come by then counts as not found."""

LIFETIME_S = 3600

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """Seconds of each, in no particular order.

    ``lookups_s``: until the record was there, verified; None: it never came. ``complete_s``: until the lookup
    had heard the closest live nodes. ``publications_s``: until the last of the storing nodes has confirmed;
    ``stores``: how many did.
    """

    nodes: int
    killed: int
    lookups_s: list[float | None]
    complete_s: list[float]
    publications_s: list[float]
    stores: list[int]

    @property
    def found(self) -> float:
        """The share of lookups that found the record."""
        return sum(seconds is not None for seconds in self.lookups_s) / len(self.lookups_s)


@dataclass(frozen=True)
class _Published:
    topic: Topic
    envelope: bytes


def address(number: int) -> str:
    """Of node ``number``: one /24 for each."""
    return f"127.{1 + (number >> 8)}.{number & 255}.1"


async def measure(
    size: int, killed_share: float, count: int, seed: int, progress: Progress = lambda _: None
) -> Outcome:
    """Start ``size`` nodes, publish ``count`` records, kill a share of the nodes; then look the records up
    and publish as many others, each from a live node that chance picks. Raises DhtVpnError."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    nodes = [await DhtNode.open(address(number)) for number in range(size)]
    try:
        await enter(nodes, [Endpoint(address(number), PORT) for number in range(size)])
        await asyncio.sleep(SETTLE_S)
        progress(f"{size} nodes are up")
        before = [_record() for _ in range(count)]
        await _each(before, lambda record: _publish(chance.choice(nodes).directory, record))
        progress(f"{count} records are published")
        killed = chance.sample(nodes, round(size * killed_share))
        for node in killed:
            await node.close()
        alive = [node.directory for node in nodes if node not in killed]
        progress(f"{len(killed)} nodes are killed")
        lookups = await _each(before, lambda record: _look_up(chance.choice(alive), record))
        publications = await _each(
            [_record() for _ in range(count)], lambda record: _publish(chance.choice(alive), record)
        )
        return Outcome(
            size,
            len(killed),
            [found for found, _ in lookups],
            [complete for _, complete in lookups],
            [seconds for seconds, _ in publications],
            [stores for _, stores in publications],
        )
    finally:
        for node in nodes:
            await node.close()


async def _each(records: list[_Published], act: Callable[[_Published], Awaitable[T]]) -> list[T]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(record: _Published) -> T:
        async with turn:
            return await act(record)

    return list(await asyncio.gather(*(one(record) for record in records)))


async def _look_up(directory: KademliaDirectory, record: _Published) -> tuple[float | None, float]:
    """Seconds until the record was there, None where it never came; and until the lookup ended, or was given
    up at LOOKUP_DEADLINE_S."""
    began, found = time.monotonic(), None
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(LOOKUP_DEADLINE_S),
            aclosing(directory.lookup(record.topic.dht_key)) as envelopes,
        ):
            async for envelope in envelopes:
                if found is None and envelope == record.envelope:
                    found = time.monotonic() - began
    return found, time.monotonic() - began


async def _publish(directory: KademliaDirectory, record: _Published) -> tuple[float, int]:
    """Seconds until every store was confirmed or given up, and how many were confirmed."""
    began = time.monotonic()
    stores = await directory.publish(record.topic.dht_key, record.envelope)
    return time.monotonic() - began, stores


def _record() -> _Published:
    """The record of a member of a network that nobody else is in."""
    now = time.time()
    identity = Identity.from_seed(os.urandom(32))
    topic = Topic.derive(os.urandom(32), epoch_at(now))
    record = EndpointRecord(identity.node_key, "member", os.urandom(16), (), 0, int(now), 0)
    return _Published(topic, seal(record, topic, identity, 1, int(now) + LIFETIME_S, os.urandom))
