"""The experiments at rest: what a node costs that has nothing to do, what one that stores for many networks
holds and serves, and whether members stay found."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.simulation.address_plan import endpoints
from dhtvpn.lab.simulation.churn import Churn
from dhtvpn.lab.simulation.figures import HeldFigures, RestFigures, WatchFigures, average, percentiles
from dhtvpn.lab.simulation.held import HeldSamples
from dhtvpn.lab.simulation.member import Member
from dhtvpn.lab.simulation.nodes import Node, make_node
from dhtvpn.lab.simulation.population import Population

NETWORKS, MEMBERS_EACH = 2, 4
"""Members at rest. All but one of a network are behind NATs."""

CROWD_EACH = 8
"""Members of each network in :func:`serving_many`, all behind NATs: nobody but the storing nodes stores."""

SAMPLED_STORING = 6
"""Storing nodes with upkeep in a population that has none otherwise."""

WARM_UP_S = 900.0
"""After the joining, before octets are counted."""

CHECK_S = 600.0
JOIN_EVERY_S = 3600.0
JOIN_WAIT_S = 60.0
REMEMBERED = 16


@dataclass
class _Network:
    secret: bytes
    members: list[Member]


@dataclass
class _Watched:
    expected: int = 0
    known: int = 0
    joins: int = 0
    seen_s: list[float] = field(default_factory=list)


async def among_many(population: Population, hours: float, rng: random.Random) -> list[RestFigures]:
    """Members at rest in a large population whose own upkeep stands still, for its cost would be
    prohibitive; members do not see it, for nobody pings them. A few storing nodes have upkeep: what one
    of them asks for, all nodes on average are asked for, so its figures are what it sends and receives
    taken together, each way.
    """
    networks = await _join_networks(population, rng)
    sample = rng.sample(population.nodes, min(SAMPLED_STORING, len(population.nodes)))
    for node in sample:
        await node.directory.start()
    members = [member.node for network in networks for member in network.members]
    held = await _let_pass([*members, *sample], hours, sample)
    figures = [
        _figures("member", population, hours, members, members=len(members)),
        _mirrored(_figures("storing", population, hours, sample, members=len(members), held=held)),
    ]
    await _close(networks)
    return figures


async def serving_many(
    population: Population, networks: int, hours: float, rng: random.Random
) -> list[RestFigures]:
    """What each storing node holds and serves when ``networks`` networks rest. Everybody's upkeep runs, and
    all nodes are measured: nothing is scaled."""
    for node in population.nodes:
        await node.directory.start()
    crowd = await _join_networks(population, rng, networks, CROWD_EACH, first_behind_nat=True)
    members = [member.node for network in crowd for member in network.members]
    storing = population.nodes
    held = await _let_pass([*members, *storing], hours, storing)
    figures = [
        _figures("member", population, hours, members, members=len(members)),
        _figures("storing", population, hours, storing, members=len(members), held=held),
    ]
    await _close(crowd)
    return figures


async def with_churn(
    population: Population, hours: float, rng: random.Random
) -> tuple[list[RestFigures], WatchFigures]:
    """Everybody's upkeep runs and storing nodes come and go; every hour a member joins for a minute."""
    for node in population.nodes:
        await node.directory.start()
    networks = await _join_networks(population, rng)
    free = len(population.nodes) + NETWORKS * MEMBERS_EACH
    churn = Churn(population, free + int(hours) + 1, rng)
    watched = _Watched()
    tasks = [asyncio.ensure_future(part) for part in (churn.run(), _check(networks, watched))]
    members = [member.node for network in networks for member in network.members]
    began_with = list(population.nodes)
    joining = asyncio.ensure_future(
        _join_hourly(population, networks[0], watched, rng, site=free, hours=hours)
    )
    held = await _let_pass([*members, *began_with], hours, began_with)
    await joining
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    stayed = [node for node in began_with if node.line.up]
    rest = [
        _figures("member", population, hours, members, members=len(members)),
        _figures("storing", population, hours, stayed, members=len(members), held=held),
    ]
    await _close(networks)
    for node in population.nodes:
        await node.close()
    seen = len(watched.seen_s)
    return rest, WatchFigures(
        watched.expected, watched.known, watched.joins, seen, percentiles(watched.seen_s)
    )


async def _join_networks(
    population: Population,
    rng: random.Random,
    count: int = NETWORKS,
    members_each: int = MEMBERS_EACH,
    *,
    first_behind_nat: bool = False,
) -> list[_Network]:
    site = len(population.nodes)
    networks = []
    for _ in range(count):
        network = _Network(rng.randbytes(32), [])
        for number in range(members_each):
            behind_nat = number > 0 or first_behind_nat
            member = _member(population, network, site, rng, behind_nat=behind_nat)
            network.members.append(member)
            site += 1
            await member.join(_remembered(population, rng))
        networks.append(network)
    return networks


def _member(
    population: Population, network: _Network, site: int, rng: random.Random, *, behind_nat: bool
) -> Member:
    node = make_node(population.internet, endpoints(site, 1)[0], site, rng, behind_nat=behind_nat)
    return Member(node, network.secret, rng)


def _remembered(population: Population, rng: random.Random) -> list[Endpoint]:
    known = rng.sample(population.nodes, min(REMEMBERED, len(population.nodes)))
    return [node.line.endpoint for node in known]


async def _close(networks: list[_Network]) -> None:
    for network in networks:
        for member in network.members:
            await member.close()


async def _let_pass(nodes: list[Node], hours: float, storing: Sequence[Node]) -> HeldFigures:
    """After the warm-up count octets of ``nodes``, and sample what ``storing`` hold."""
    await asyncio.sleep(WARM_UP_S)
    for node in nodes:
        node.line.reset_counters()
    samples = HeldSamples(storing)
    sampling = asyncio.ensure_future(samples.run())
    await asyncio.sleep(hours * 3600)
    sampling.cancel()
    with suppress(asyncio.CancelledError):
        await sampling
    return samples.figures


async def _check(networks: list[_Network], watched: _Watched) -> None:
    await asyncio.sleep(WARM_UP_S)
    while True:
        for network in networks:
            for member in network.members:
                others = [other for other in network.members if other is not member]
                watched.expected += len(others)
                watched.known += sum(member.knows(other) for other in others)
        await asyncio.sleep(CHECK_S)


async def _join_hourly(
    population: Population,
    network: _Network,
    watched: _Watched,
    rng: random.Random,
    *,
    site: int,
    hours: float,
) -> None:
    """A newcomer for a minute, as long as the hours last; the first one half an hour after the warm-up."""
    await asyncio.sleep(WARM_UP_S + min(JOIN_EVERY_S, hours * 3600) / 2)
    for number in range(max(1, int(hours))):
        newcomer = _member(population, network, site + number, rng, behind_nat=True)
        await newcomer.join(_remembered(population, rng))
        await asyncio.sleep(JOIN_WAIT_S)
        key = newcomer.identity.node_key
        watched.joins += len(network.members)
        for member in network.members:
            if key in member.found_at:
                watched.seen_s.append(member.found_at[key] - newcomer.began_to_publish)
        await newcomer.close()
        if number + 1 < int(hours):
            await asyncio.sleep(JOIN_EVERY_S - JOIN_WAIT_S)


def _figures(
    kind: str,
    population: Population,
    hours: float,
    nodes: list[Node],
    *,
    members: int,
    held: HeldFigures | None = None,
) -> RestFigures:
    seconds = hours * 3600
    sent = [node.line.sent_octets / seconds for node in nodes]
    received = [node.line.received_octets / seconds for node in nodes]
    datagrams = [(node.line.sent + node.line.received) / seconds for node in nodes]
    return RestFigures(
        kind,
        len(population.nodes),
        hours,
        len(nodes),
        average(sent),
        average(received),
        max(sent, default=0.0),
        max(received, default=0.0),
        average(datagrams),
        members,
        held,
    )


def _mirrored(alone: RestFigures) -> RestFigures:
    both, worst = alone.sent + alone.received, alone.worst_sent + alone.worst_received
    return RestFigures(
        alone.kind,
        alone.nodes,
        alone.hours,
        alone.measured,
        both,
        both,
        worst,
        worst,
        2 * alone.datagrams_per_s,
        alone.members,
        alone.held,
    )
