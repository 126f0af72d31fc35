"""Places go round, whatever becomes of those who wait for them."""

import asyncio

from virtual_time import run

from dhtvpn.node.turns import HOLD_S, Turns


class Attempt:
    """Takes ``seconds`` when it is its turn."""

    def __init__(self, turns: Turns, seconds: float) -> None:
        self.now = asyncio.Event()
        self.began: float | None = None
        self.task = asyncio.create_task(self._run(turns, seconds))

    async def _run(self, turns: Turns, seconds: float) -> None:
        async with turns.turn(self.now):
            self.began = asyncio.get_running_loop().time()
            await asyncio.sleep(seconds)


def test_short_attempts_follow_each_other() -> None:
    async def scenario() -> None:
        turns = Turns(at_once=3)
        start = asyncio.get_running_loop().time()
        attempts = [Attempt(turns, 0.2) for _ in range(12)]
        await asyncio.gather(*(each.task for each in attempts))
        waves = [round((each.began or 0.0) - start, 1) for each in attempts]
        assert waves == [0.0] * 3 + [0.2] * 3 + [0.4] * 3 + [0.6] * 3

    run(scenario())


def test_who_is_cancelled_leaves_its_place_to_the_next() -> None:
    async def scenario() -> None:
        turns = Turns(at_once=1)
        running, waiting, handed, last = (Attempt(turns, 0.5) for _ in range(4))
        await asyncio.sleep(0.1)
        waiting.task.cancel()
        await asyncio.sleep(0.1)
        running.task.cancel()
        await asyncio.sleep(0)  # ``handed`` has the place now, and has not begun
        handed.task.cancel()
        await asyncio.sleep(0.1)
        assert waiting.began is None and handed.began is None and last.began is not None
        await last.task
        again = Attempt(turns, 0.1)
        await asyncio.sleep(0.01)
        assert again.began is not None
        await again.task

    run(scenario())


def test_there_are_never_more_than_the_most() -> None:
    async def scenario() -> None:
        turns = Turns(at_once=1, most=4)
        attempts = [Attempt(turns, 10.0) for _ in range(8)]
        for each in attempts:
            each.now.set()
        await asyncio.sleep(HOLD_S)
        assert [each.began is not None for each in attempts] == [True] * 4 + [False] * 4
        for each in attempts:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in attempts), return_exceptions=True)

    run(scenario())
