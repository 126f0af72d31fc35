"""Work of a node that nobody waits for; what fails there is told all the same."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from dhtvpn.errors import SystemRefusedError

log = logging.getLogger(__name__)


class Background:
    """``say`` is told when the system refuses something; any other failure is a bug, and logged as one."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Begin ``work`` now."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def close(self) -> None:
        """End whatever has not ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SystemRefusedError):
            self._say("warning", str(error))
        elif error is not None:
            log.error("a background task failed", exc_info=error)
