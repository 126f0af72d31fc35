"""Tells of drops as events: sums over some time, never one for each datagram.

While drops go on the time doubles, so that the noise of a public port does not push everything else out of
the ring of events.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from dhtvpn.node.happenings import Dropped, Happening

FIRST_S: Final = 5.0
LONGEST_S: Final = 320.0


class DropReports:
    """``counts`` gives all counters since the start."""

    def __init__(self, *, counts: Callable[[], Mapping[str, int]], tell: Callable[[Happening], None]) -> None:
        self._counts, self._tell = counts, tell

    async def run(self) -> None:
        """Until cancelled."""
        before: Mapping[str, int] = {}
        period_s = FIRST_S
        while True:
            await asyncio.sleep(period_s)
            now = dict(self._counts())
            new = {name: count - before.get(name, 0) for name, count in now.items()}
            new = {name: count for name, count in new.items() if count > 0}
            before = now
            if new:
                self._tell(Dropped(new, period_s))
            period_s = min(2 * period_s, LONGEST_S) if new else FIRST_S
