"""A machine that has slept is told from one that is busy."""

import asyncio

from virtual_time import run

from dhtvpn.node.waking import TICK_S, Waking


def test_a_sleep_is_noticed_within_a_tick_and_a_busy_moment_is_none() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        slept_s, missed, noticed = 0.0, list[float](), asyncio.Event()

        def woke(missed_s: float) -> None:
            missed.append(missed_s)
            noticed.set()

        waking = Waking(woke, clock=lambda: loop.time() + slept_s)
        task = asyncio.create_task(waking.run())
        await asyncio.sleep(60)
        slept_s += 2.0
        await asyncio.sleep(60)
        assert missed == []
        slept_s += 3600.0
        began = loop.time()
        await noticed.wait()
        assert loop.time() - began <= TICK_S + 0.1
        assert 3599 < missed[0] < 3601
        task.cancel()

    run(scenario())
