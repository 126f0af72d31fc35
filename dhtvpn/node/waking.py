"""Notices that the machine, or this process, has stood still: suspended to memory, stopped or frozen.

A timer that comes much later than it was set says so, or that the processor was busy. The time in which we
had a processor or waited for one tells these apart (system/processor_time.py): who stands still has neither.
CLOCK_BOOTTIME also counts the time of a suspend, in which the event loop's clock stands still
(clock_gettime(2)).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

TICK_S: Final = 1.0
"""How late a wake-up may be noticed. Ours: one wake-up of the processor a second costs next to nothing."""

STOOD_STILL_S: Final = 4.0
"""Who has not been there for so long may have lost NAT mappings and leases. A disk that takes so long for one
write is taken for a sleep, too: that costs a ping to each peer."""


def boot_time() -> float:
    """Seconds since the machine started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def no_account() -> float:
    """Where nobody counts how long we wait for a processor: each late timer is taken for a sleep."""
    return 0.0


class Waking:
    """Calls ``woke`` with the seconds that were missed. ``wanted_to_run``: how long the event loop's thread
    has had a processor, or waited for one, since some beginning."""

    def __init__(
        self,
        woke: Callable[[float], None],
        *,
        clock: Callable[[], float] = boot_time,
        wanted_to_run: Callable[[], float] = no_account,
    ) -> None:
        self._woke = woke
        self._clock = clock
        self._wanted_to_run = wanted_to_run

    async def run(self) -> None:
        """Until cancelled."""
        before, wanted_before = self._clock(), self._wanted_to_run()
        while True:
            await asyncio.sleep(TICK_S)
            now, wanted = self._clock(), self._wanted_to_run()
            missed_s = now - before - TICK_S - max(0.0, wanted - wanted_before)
            before, wanted_before = now, wanted
            if missed_s >= STOOD_STILL_S:
                self._woke(missed_s)
