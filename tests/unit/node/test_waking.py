"""A machine that has slept is told from one that is busy."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from virtual_time import run

from dhtvpn.node.waking import TICK_S, Waking


class Machine:
    """Its clock jumps; its account says how much of that time we wanted a processor."""

    def __init__(self) -> None:
        self.gone_s = self.wanted_s = 0.0
        self.missed: list[float] = []
        self.noticed = asyncio.Event()

    def woke(self, missed_s: float) -> None:
        self.missed.append(missed_s)
        self.noticed.set()

    def away(self, seconds: float, *, wanting: float = 0.0) -> None:
        """So long nothing was done, ``wanting`` of it for lack of a processor."""
        self.gone_s += seconds
        self.wanted_s += wanting


def play(story: Callable[[Machine], Awaitable[None]]) -> None:
    async def scenario() -> None:
        machine, loop = Machine(), asyncio.get_running_loop()
        waking = Waking(
            machine.woke,
            clock=lambda: loop.time() + machine.gone_s,
            wanted_to_run=lambda: machine.wanted_s,
        )
        task = asyncio.create_task(waking.run())
        await asyncio.sleep(60)
        await story(machine)
        task.cancel()

    run(scenario())


def test_a_sleep_is_noticed_within_a_tick_and_a_busy_moment_is_none() -> None:
    async def story(machine: Machine) -> None:
        machine.away(2.0)
        await asyncio.sleep(60)
        assert machine.missed == []
        machine.away(3600.0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await machine.noticed.wait()
        assert loop.time() - began <= TICK_S + 0.1
        assert 3599 < machine.missed[0] < 3601

    play(story)


@pytest.mark.parametrize("seconds", [5.0, 30.0, 600.0])
def test_who_waits_for_a_processor_has_not_slept(seconds: float) -> None:
    async def story(machine: Machine) -> None:
        for _ in range(10):
            machine.away(seconds, wanting=seconds)
            await asyncio.sleep(3)
        assert machine.missed == []

    play(story)


def test_a_sleep_on_a_busy_machine_is_noticed_too() -> None:
    async def story(machine: Machine) -> None:
        machine.away(40.0, wanting=10.0)
        await machine.noticed.wait()
        assert 29 < machine.missed[0] < 31

    play(story)
