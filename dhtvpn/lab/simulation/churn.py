"""Storing nodes come and go: one vanishes without a word, a stranger at another address takes its place."""

import asyncio
import random

from dhtvpn.lab.simulation.address_plan import endpoints
from dhtvpn.lab.simulation.nodes import Node, make_node
from dhtvpn.lab.simulation.population import Population

MEAN_LIFETIME_S = 12 * 3600.0
"""Exponential, as for nodes of public DHTs; a volunteer's node stays far longer."""

REMEMBERED = 16


class Churn:
    """Runs until cancelled. The number of nodes stays the same."""

    def __init__(self, population: Population, first_free_site: int, rng: random.Random) -> None:
        self._population, self._rng = population, rng
        self._site = first_free_site
        self.replaced = 0

    async def run(self) -> None:
        nodes = self._population.nodes
        while True:
            await asyncio.sleep(self._rng.expovariate(len(nodes) / MEAN_LIFETIME_S))
            place = self._rng.randrange(len(nodes))
            await nodes[place].close()
            nodes[place] = await self._newcomer()
            self.replaced += 1

    async def _newcomer(self) -> Node:
        node = make_node(self._population.internet, endpoints(self._site, 1)[0], self._site, self._rng)
        self._site += 1
        known = self._rng.sample(self._population.nodes, min(REMEMBERED, len(self._population.nodes)))
        await node.directory.start([other.line.endpoint for other in known if other.line.up])
        return node
