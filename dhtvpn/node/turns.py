"""Who may look for a path now, where dozens of members come at once: those that somebody waits for first.

Checks that wait for each other's processor time are repeated, and cost more than checks in turn.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

AT_ONCE: Final = 12
"""Attempts that nobody waits for, at a time. Ours."""
HOLD_S: Final = 1.0
"""An attempt keeps its place for so long at most: most take less, and some ten seconds."""
MOST: Final = 64
"""Attempts at a time in any case: a bound on the checks that made-up members can have us send."""


class Turns:
    """Of the attempts of one node."""

    def __init__(self, at_once: int = AT_ONCE, most: int = MOST) -> None:
        self._free = at_once
        self._queue: deque[asyncio.Event] = deque()
        self._most = asyncio.Semaphore(most)

    @asynccontextmanager
    async def turn(self, now: asyncio.Event) -> AsyncIterator[None]:
        """One attempt. It begins when there is a place, or when ``now`` is set by whoever cannot wait."""
        place = _Place(self) if await self._has_place(now) else None
        try:
            async with self._most:
                if place is not None:
                    asyncio.get_running_loop().call_later(HOLD_S, place.leave)
                yield
        finally:
            if place is not None:
                place.leave()

    async def _has_place(self, now: asyncio.Event) -> bool:
        if now.is_set():
            return False
        if self._free:
            self._free -= 1
            return True
        self._queue.append(now)
        try:
            await now.wait()
        except asyncio.CancelledError:
            if now not in self._queue:
                self.next()  # it was our turn
            raise
        finally:
            in_a_hurry = now in self._queue
            if in_a_hurry:
                self._queue.remove(now)
        return not in_a_hurry

    def next(self) -> None:
        """A place has been left: it is the next one's."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free += 1


class _Place:
    """One of those who may begin now; left once."""

    def __init__(self, turns: Turns) -> None:
        self._turns: Turns | None = turns

    def leave(self) -> None:
        """Let the next one begin."""
        if self._turns is not None:
            turns, self._turns = self._turns, None
            turns.next()
