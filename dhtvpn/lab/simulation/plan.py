"""One run of the simulation: which experiments, over which numbers of nodes, from one seed.

Every experiment has a world of its own (loop, sites, random numbers from seed and name), so its figures do
not depend on which others run beside it.
"""

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from dhtvpn.lab.simulation import growth, lookups, rest, virtual_time
from dhtvpn.lab.simulation.figures import Figures, Growth, LookupFigures, RestFigures, WatchFigures
from dhtvpn.lab.simulation.internet import LOSS, Internet
from dhtvpn.lab.simulation.latency import Latencies
from dhtvpn.lab.simulation.lookups import Condition
from dhtvpn.lab.simulation.population import Population

SIZES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
DEAD_SWEEP = (10.0, 20.0, 30.0, 40.0, 50.0)
HOSTILE_SWEEP = (5.0, 10.0, 20.0, 30.0, 40.0)

CHURN_NODES = 200
"""Of the experiment in which every node has its upkeep: it costs by far the most time to compute."""

SPARE_SITES = 4000
"""For members, and for the nodes that come while others go."""

DAY_S = 86_400.0

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What to measure. ``dead`` and ``hostile`` in percent: when either is given, that one condition takes
    the place of the two sweeps. ``hours`` 0: nothing at rest. ``networks``: of CROWD_EACH members, that rest
    over ``nodes`` nodes so that these have something to store."""

    nodes: int = 1000
    seed: int = 1
    dead: float | None = None
    hostile: float | None = None
    hours: float = 1.0
    lookups: int = 400
    networks: int = 0

    @property
    def sizes(self) -> list[int]:
        """From 100 nodes up to ``nodes``, about three times as many at each step."""
        return [size for size in SIZES if size < self.nodes] + [self.nodes]

    @property
    def conditions(self) -> list[Condition]:
        """Besides the one where nothing is wrong."""
        if self.dead is not None or self.hostile is not None:
            return [Condition(self.dead or 0.0, self.hostile or 0.0)]
        return [
            *(Condition(dead_percent=percent) for percent in DEAD_SWEEP),
            *(Condition(hostile_percent=percent) for percent in HOSTILE_SWEEP),
        ]


@dataclass
class _World:
    internet: Internet
    population: Population
    rng: random.Random


def simulate(plan: Plan, progress: Progress) -> Figures:
    """Everything in ``plan``, one experiment after the other. Takes from seconds to most of an hour."""
    by_size: list[LookupFigures] = []
    for size in plan.sizes[:-1]:
        by_size += _in_world(plan.seed, size, _looking_up(plan, [Condition()], progress))
    at_full = _in_world(plan.seed, plan.nodes, _looking_up(plan, [Condition(), *plan.conditions], progress))
    by_size.append(at_full[0])
    resting: list[RestFigures] = []
    watch: WatchFigures | None = None
    if plan.hours:
        progress(f"{plan.hours:g} h at rest among {plan.nodes} nodes")
        resting += _in_world(
            plan.seed, plan.nodes, lambda w: rest.among_many(w.population, plan.hours, w.rng)
        )
        size = min(CHURN_NODES, plan.nodes)
        progress(f"{plan.hours:g} h at rest among {size} nodes that come and go")
        more, watch = _in_world(plan.seed, size, lambda w: rest.with_churn(w.population, plan.hours, w.rng))
        resting += more
        if plan.networks:
            resting += _serving(plan, progress)
    return Figures(
        seed=plan.seed,
        nodes=plan.nodes,
        rtt_s=_latencies(plan.seed, plan.nodes + SPARE_SITES).percentiles_s,
        loss=LOSS,
        by_size=by_size,
        by_condition=at_full[1:],
        growth=_growth(by_size),
        rest=resting,
        watch=watch,
    )


def _serving(plan: Plan, progress: Progress) -> list[RestFigures]:
    members = plan.networks * rest.CROWD_EACH
    progress(f"{plan.hours:g} h at rest of {members} members over {plan.nodes} nodes")
    return _in_world(
        plan.seed,
        plan.nodes,
        lambda w: rest.serving_many(w.population, plan.networks, plan.hours, w.rng),
        spare_sites=members,
    )


def _looking_up(
    plan: Plan, conditions: list[Condition], progress: Progress
) -> Callable[[_World], Coroutine[Any, Any, list[LookupFigures]]]:
    async def look_up(world: _World) -> list[LookupFigures]:
        figures = []
        for condition in conditions:
            progress(f"{plan.lookups} lookups, {len(world.population.nodes)} nodes, {condition}")
            figures.append(await lookups.measure(world.population, condition, plan.lookups, world.rng))
        return figures

    return look_up


def _in_world(
    seed: int,
    nodes: int,
    experiment: Callable[[_World], Coroutine[Any, Any, T]],
    spare_sites: int = SPARE_SITES,
) -> T:
    """Run ``experiment`` in a fresh loop with a fresh population."""

    async def run() -> T:
        rng = random.Random(f"{seed} {nodes}")  # noqa: S311 - a simulation shall be repeatable
        internet = Internet(_latencies(seed, nodes + spare_sites), rng)
        population = Population(internet, nodes, rng)
        gc.collect()
        gc.freeze()  # the population stays: the collector need not walk through it again and again
        try:
            return await experiment(_World(internet, population, rng))
        finally:
            gc.unfreeze()
            await asyncio.gather(*(node.close() for node in population.nodes))

    return virtual_time.run(run(), give_up_s=30 * DAY_S)


def _latencies(seed: int, sites: int) -> Latencies:
    return Latencies(sites, random.Random(f"{seed} latencies"))  # noqa: S311 - see above


def _growth(by_size: list[LookupFigures]) -> Growth | None:
    if len(by_size) < 2:
        return None
    return growth.fit([f.nodes for f in by_size], [f.datagrams for f in by_size])
