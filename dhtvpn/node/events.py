"""What a person wants to follow while a node runs: short sentences with a kind, for any number of ears."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from dhtvpn.node.patience import happens

HISTORY = 100
"""Events kept for a listener that comes later."""
MAX_LISTENERS = 32
QUEUE = 200
"""Events that a slow listener may be behind before it misses the oldest."""


class Events:
    """Reports events to the terminal, and streams them to the local API."""

    def __init__(self, report: Callable[[str, str], None]) -> None:
        self._report = report
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self._changed = asyncio.Event()

    def say(self, kind: str, text: str) -> None:
        """Report one event. ``kind`` is a fixed word: "start", "directory", "nat", "peer", "warning"..."""
        event = {"time": time.time(), "kind": kind, "text": text}
        self._history.append(event)
        self._report(kind, text)
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits for a change look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, timeout_s: float) -> bool:
        """Wait for the next change; False when ``timeout_s`` passed without one."""
        return await happens(self._changed, timeout_s)

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """The events so far, then each as it happens. Ends at once when too many listen already."""
        if len(self._listeners) >= MAX_LISTENERS:
            return
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE)
        for event in list(self._history):
            yield event
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)
