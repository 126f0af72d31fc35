"""Waiting for the first of several, and no longer than it is worth for the others."""

import asyncio

import pytest
from virtual_time import run

from dhtvpn.discovery.tasks import SOON_S, first_and_soon_after


@pytest.mark.parametrize(
    ("delays_s", "expected_s"),
    [
        ([0.1, 0.1, 0.1], 0.1),
        ([0.1, 9.0], 0.2),
        ([0.1, 0.15, 9.0], 0.2),
        ([0.2, 9.0], 0.25),
        ([9.0, 9.0], 0.25),
        ([0.0, 9.0], SOON_S),
    ],
)
def test_the_others_get_as_long_again_as_the_first_took(delays_s, expected_s):
    async def scenario():
        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(asyncio.sleep(delay)) for delay in delays_s]
        began = loop.time()
        await first_and_soon_after(tasks, 0.25)
        assert loop.time() - began == pytest.approx(expected_s, abs=0.001)
        for task in tasks:
            task.cancel()

    run(scenario())
