"""The experiment: members publish and look each other up among many nodes, some dead, some hostile."""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from dhtvpn.lab.simulation.address_plan import endpoints
from dhtvpn.lab.simulation.figures import LookupFigures, average, percentiles
from dhtvpn.lab.simulation.hostile import Conspiracy
from dhtvpn.lab.simulation.nodes import Node, make_node
from dhtvpn.lab.simulation.population import Population
from dhtvpn.lab.simulation.publications import Publication
from dhtvpn.lab.simulation.trace import Trace

MEMBERS = 40
"""Half of them publish, half look up."""

NAT_SHARE = 0.7
"""Members behind a NAT."""

REMEMBERED = 16
"""Nodes that a member has on disk from the last time."""

SETTLE_S = 15.0
PAUSE_S = 5.0
"""Between two lookups of one member, so that late answers are counted to the right one."""


@dataclass(frozen=True)
class Condition:
    """What is wrong with the nodes."""

    dead_percent: float = 0.0
    """Nodes that fall silent after the publication and before the lookups; no table knows yet."""
    hostile_percent: float = 0.0
    """Nodes that were hostile from before the publication on."""

    def __str__(self) -> str:
        if not (self.dead_percent or self.hostile_percent):
            return "all in order"
        shares = {"dead": self.dead_percent, "hostile": self.hostile_percent}
        return ", ".join(f"{percent:g}% {word}" for word, percent in shares.items() if percent)


@dataclass
class _Tally:
    forged: int = 0
    rolled_back: int = 0
    found: int = 0
    first_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    publish_s: list[float] = field(default_factory=list)
    confirmed: list[int] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)


async def measure(
    population: Population, condition: Condition, lookups: int, rng: random.Random
) -> LookupFigures:
    """``lookups`` lookups, each of one record that another member has published at most once renewed."""
    internet, tally = population.internet, _Tally()
    internet.errors.clear()
    population.keep_up()
    hostile = population.choose(condition.hostile_percent)
    with _conspiring(hostile, rng):
        async with _members(population, set(map(id, hostile)), rng) as members:
            writers, readers = members[: MEMBERS // 2], members[MEMBERS // 2 :]
            publications = await _publish_all(writers, max(1, lookups // 2), condition, tally, rng)
            spared = {id(node) for node in hostile}
            dead = [n for n in population.choose(condition.dead_percent) if id(n) not in spared]
            with _dead(dead):
                shares = [range(number, lookups, len(readers)) for number in range(len(readers))]
                await asyncio.gather(
                    *(
                        _look_up_all(reader, [publications[i % len(publications)] for i in share], tally, rng)
                        for reader, share in zip(readers, shares, strict=True)
                    )
                )
    return LookupFigures(
        nodes=len(population.nodes),
        dead_percent=condition.dead_percent,
        hostile_percent=condition.hostile_percent,
        lookups=lookups,
        found=tally.found,
        forged=tally.forged,
        rolled_back=tally.rolled_back,
        first_s=percentiles(tally.first_s),
        whole_s=percentiles(tally.whole_s),
        publish_s=percentiles(tally.publish_s),
        confirmed=average(tally.confirmed),
        rounds=average([trace.rounds for trace in tally.traces]),
        datagrams=average([trace.sent + trace.received for trace in tally.traces]),
        octets_sent=average([trace.octets_sent for trace in tally.traces]),
        octets_received=average([trace.octets_received for trace in tally.traces]),
        escaped=len(internet.errors),
    )


async def _publish_all(
    writers: list[Node], count: int, condition: Condition, tally: _Tally, rng: random.Random
) -> list[Publication]:
    """One record each in a network of its own. Among hostile nodes it is renewed once, so that there is
    something old to replay."""
    publications = [Publication.make(rng, writers[i % len(writers)].line.endpoint) for i in range(count)]

    async def publish(number: int) -> None:
        for publication in publications[number :: len(writers)]:
            for _ in range(2 if condition.hostile_percent else 1):
                began = asyncio.get_running_loop().time()
                stores = await writers[number].directory.publish(
                    publication.topic.dht_key, publication.seal_next()
                )
                tally.publish_s.append(asyncio.get_running_loop().time() - began)
                tally.confirmed.append(stores)

    await asyncio.gather(*(publish(number) for number in range(len(writers))))
    return publications


async def _look_up_all(
    reader: Node, publications: list[Publication], tally: _Tally, rng: random.Random
) -> None:
    for publication in publications:
        await asyncio.sleep(rng.uniform(0.0, PAUSE_S))
        trace = Trace(reader.line)
        await _look_up(reader, publication, tally)
        await asyncio.sleep(PAUSE_S)
        trace.stop()
        tally.traces.append(trace)


async def _look_up(reader: Node, publication: Publication, tally: _Tally) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    newest_at, last = 0.0, b""
    async with aclosing(reader.directory.lookup(publication.topic.dht_key)) as envelopes:
        async for envelope in envelopes:
            if publication.is_forged(envelope):
                tally.forged += 1
                continue
            last = envelope
            if envelope == publication.envelopes[-1]:
                newest_at = loop.time()
    if last != publication.envelopes[-1]:
        tally.rolled_back += bool(last)
        return
    tally.found += 1
    tally.first_s.append(newest_at - began)
    tally.whole_s.append(loop.time() - began)


@asynccontextmanager
async def _members(
    population: Population, hostile: set[int], rng: random.Random
) -> AsyncGenerator[list[Node], None]:
    """Members that have joined from a few remembered nodes, and are disconnected at the end."""
    first = len(population.nodes)
    members = [
        make_node(population.internet, endpoint, first + i, rng, behind_nat=rng.random() < NAT_SHARE)
        for i, endpoint in enumerate(endpoints(first, MEMBERS))
    ]
    try:
        for member in members:
            remembered = rng.sample(population.nodes, min(REMEMBERED, len(population.nodes)))
            await member.directory.bootstrap([node.line.endpoint for node in remembered])
        await asyncio.sleep(SETTLE_S)
        yield members
    finally:
        for member in members:
            await member.close()


@contextmanager
def _conspiring(nodes: list[Node], rng: random.Random) -> Iterator[None]:
    conspiracy = Conspiracy(nodes, rng)
    conspiracy.take_over()
    try:
        yield
    finally:
        conspiracy.give_back()


@contextmanager
def _dead(nodes: list[Node]) -> Iterator[None]:
    for node in nodes:
        node.line.up = False
    try:
        yield
    finally:
        for node in nodes:
            node.line.up = True
