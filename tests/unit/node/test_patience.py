"""Events that happen in time, too late, and in the moment of a cancellation."""

import asyncio

import pytest
from virtual_time import run

from dhtvpn.node.patience import happens


@pytest.mark.parametrize(("after_s", "in_time"), [(0.0, True), (0.9, True), (1.1, False)])
def test_whether_it_happens(after_s: float, in_time: bool) -> None:
    async def scenario() -> None:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(after_s, event.set)
        assert await happens(event, 1.0) is in_time

    run(scenario())


def test_a_cancellation_is_not_lost() -> None:
    async def scenario() -> None:
        event, went_on = asyncio.Event(), False

        async def wait() -> None:
            nonlocal went_on
            await happens(event, 1.0)
            went_on = True

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
        event.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() and not went_on

    run(scenario())
