"""Upkeep at rest: the dead leave the table, also where nobody else is talked to."""

import asyncio

import pytest
from discovery_simulation import Network, run


@pytest.mark.parametrize("dead", [1, 10])
def test_a_resting_node_drops_its_dead_and_stops_asking_them(dead: int) -> None:
    """With eight dead ones or more, the first in line for a ping, the living would never be pinged again."""

    async def scenario() -> None:
        net = Network()
        nodes = await net.grow(12)
        for number in range(12 - dead, 12):
            await nodes[number].close()
        await asyncio.sleep(3600)
        net.log.clear()
        await asyncio.sleep(900)
        asked = {destination for source, destination, _ in net.log if source == net.endpoint(0)}
        assert asked <= {net.endpoint(number) for number in range(12 - dead)}
        assert nodes[0].size == 11 - dead
        await net.close()

    run(scenario())
