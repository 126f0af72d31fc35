"""Is this machine's clock right? Records are timed: a node that is hours off looks in the wrong hour.

The clocks of a few DHT nodes are the measure. They are strangers and may lie, and right after the start
there may be only one: so the verdict is the median, and does nothing but warn a person.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

CLOCK_TOLERANCE_S = 300
"""Half of the 600 s that two members' clocks may be apart (docs/protocol/record.md)."""

CHECK_S = 600.0
"""Between comparisons: soon enough for a person who waits, and next to no traffic."""


def judge(offsets: Sequence[float]) -> float | None:
    """The median of how far others' clocks are ahead of ours, in seconds; None when there are none, or
    when it is within CLOCK_TOLERANCE_S."""
    if not offsets:
        return None
    offset_s = median(offsets)
    return offset_s if abs(offset_s) > CLOCK_TOLERANCE_S else None


def sentence(offset_s: float) -> str:
    """The warning for a verdict of ``judge``; from two hours on in hours."""
    minutes = round(abs(offset_s) / 60)
    amount = f"{minutes} min" if minutes < 120 else f"{round(abs(offset_s) / 3600)} h"
    direction = "behind" if offset_s > 0 else "ahead of"
    return (
        f"this machine's clock is {amount} {direction} that of other nodes: records are timed, "
        "so peers cannot be found until it is set (timedatectl set-ntp true)"
    )


class ClockComparison:
    """Compares again and again, and warns when the verdict is new."""

    def __init__(
        self, *, ask: Callable[[], Awaitable[Sequence[float]]], say: Callable[[str, str], None]
    ) -> None:
        self._ask = ask
        self._say = say
        self._said: float | None = None
        self.offset_s: float | None = None
        """The last verdict; None while the clock is taken to be right."""

    async def run(self) -> None:
        """Until cancelled. To be started when the directory has been reached."""
        while True:
            self._compare(await self._ask())
            await asyncio.sleep(CHECK_S)

    def _compare(self, offsets: Sequence[float]) -> None:
        """No answers change nothing: what was learnt before is still the best guess."""
        if not offsets:
            return
        self.offset_s = judge(offsets)
        if self.offset_s is None:
            self._said = None
        elif self._said is None or abs(self.offset_s - self._said) > CLOCK_TOLERANCE_S:
            self._said = self.offset_s
            self._say("warning", sentence(self.offset_s))
