"""Tasks with an owner: nothing runs on after close, and no exception goes unseen."""

import asyncio
import logging
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


SOON_S = 0.03
"""What the others get at least, once the first has answered: nearly as near, or on a machine that is busy."""


async def first_and_soon_after(tasks: "Collection[asyncio.Task[T]]", timeout_s: float) -> None:
    """Wait for the first of ``tasks``, then as long again for the others; ``timeout_s`` at most in all.
    Nobody waits for the dead who has the living."""
    clock = asyncio.get_running_loop().time
    began = clock()
    _, pending = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    took_s = clock() - began
    left_s = min(timeout_s - took_s, max(took_s, SOON_S))
    if pending and left_s > 0:
        await asyncio.wait(pending, timeout=left_s)


class OwnedTasks:
    """Every task of one directory."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run ``coroutine`` until it ends or :meth:`close`."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel all and wait until they are gone."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a discovery task failed, please report this", exc_info=error)
