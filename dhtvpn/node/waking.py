"""Notices that the machine, or this process, has stood still: suspended to memory, or stopped.

A timer that comes much later than it was set says so. CLOCK_BOOTTIME also counts the time of a suspend, in
which the event loop's clock stands still (clock_gettime(2)).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

TICK_S: Final = 1.0
"""How late a wake-up may be noticed. Ours: one wake-up of the processor a second costs next to nothing."""

STOOD_STILL_S: Final = 4.0
"""A tick that comes this late is no busy machine: NAT mappings and leases may be gone."""


def boot_time() -> float:
    """Seconds since the machine started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Waking:
    """Calls ``woke`` with the seconds that were missed."""

    def __init__(self, woke: Callable[[float], None], *, clock: Callable[[], float] = boot_time) -> None:
        self._woke = woke
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        before = self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            missed_s = now - before - TICK_S
            before = now
            if missed_s >= STOOD_STILL_S:
                self._woke(missed_s)
