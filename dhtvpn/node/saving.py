"""Writes what is worth keeping to the disk: now and then, and soon after a path has come up.

Dozens of paths that come up in the same second are written down together: the event loop waits for the disk.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from dhtvpn.errors import SystemRefusedError
from dhtvpn.node.memory import Memory
from dhtvpn.node.patience import happens

SAVE_S: Final = 30.0
LEAST_PAUSE_S: Final = 2.0
"""From one saving to the next; a path that comes up when nothing has for so long is written down at once."""
LARGEST_SHARE: Final = 0.02
"""Of our time goes into savings at most: a slow disk is written to more rarely."""


class Saving:
    """``say`` is told when the disk refuses."""

    def __init__(self, memory: Memory, say: Callable[[str, str], None]) -> None:
        self._memory, self._say = memory, say
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await happens(self._wanted, SAVE_S)
            self._wanted.clear()
            began = time.monotonic()
            self.now()
            took_s = time.monotonic() - began
            await asyncio.sleep(max(LEAST_PAUSE_S, took_s / LARGEST_SHARE))

    def soon(self) -> None:
        """There is something new to keep."""
        self._wanted.set()

    def now(self) -> None:
        """Write everything."""
        try:
            self._memory.save()
        except SystemRefusedError as error:
            self._say("warning", str(error))
