"""What a person or a program wants to follow while a node runs: a bounded ring of events, for many readers.

Every event has a number. Readers come for events at their own pace and keep nothing here but the number that
they want next, so one that is slow, or stuck, neither blocks the node nor makes it grow: what has left the
ring before it was read is missed, and the reader is told how many.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from dhtvpn.errors import DhtVpnError
from dhtvpn.node.happenings import Happening
from dhtvpn.node.patience import happens

HISTORY: Final = 1000
"""Events kept, ours: some 300 bytes each."""
MAX_READERS: Final = 32


class Events:
    """Reports events to whoever runs the node, and streams them to the local API."""

    def __init__(
        self, report: Callable[[str, str], None], unix_time: Callable[[], float] = time.time
    ) -> None:
        self._report, self._unix_time = report, unix_time
        self._ring: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._next = 1
        self._readers = 0
        self._changed = asyncio.Event()

    def say(self, kind: str, text: str) -> None:
        """Report a sentence. ``kind`` is a fixed word: "start", "directory", "nat", "warning"..."""
        self._add(kind, kind, text, {})
        self._report(kind, text)

    def tell(self, happening: Happening) -> None:
        """Report an event that has facts."""
        self._add(happening.kind, happening.event, happening.text, happening.facts())
        if happening.shown:
            self._report(happening.kind, happening.text)

    def wake(self) -> None:
        """Let everyone who waits for a change look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, timeout_s: float) -> bool:
        """Wait for the next change; False when ``timeout_s`` passed without one."""
        return await happens(self._changed, timeout_s)

    async def stream(
        self, *, last: int | None = None, after: int | None = None, follow: bool = True
    ) -> AsyncIterator[dict[str, Any]]:
        """The events so far, of those only the ``last`` ones or those ``after`` a number; then, with
        ``follow``, each as it happens. Raises DhtVpnError when too many follow already."""
        if self._readers >= MAX_READERS:
            raise DhtVpnError(f"{MAX_READERS} readers follow the events already: end one of them first")
        self._readers += 1
        try:
            wanted = self._first(last, after)
            while True:
                changed = self._changed
                while wanted < self._next:
                    event = self._ring[max(0, wanted - self._oldest)]
                    if missed := event["seq"] - wanted:
                        yield self._missed(missed, event["seq"] - 1)
                    yield event
                    wanted = event["seq"] + 1
                if not follow:
                    return
                await changed.wait()
        finally:
            self._readers -= 1

    @property
    def _oldest(self) -> int:
        return self._next - len(self._ring)

    def _first(self, last: int | None, after: int | None) -> int:
        if after is not None and after < self._next:  # a greater number is of an earlier run of the node
            return after + 1
        return self._oldest if last is None else max(self._oldest, self._next - last)

    def _add(self, kind: str, event: str, text: str, facts: dict[str, Any]) -> None:
        head = {"seq": self._next, "time": self._unix_time(), "kind": kind, "event": event, "text": text}
        self._ring.append({**head, **facts})
        self._next += 1
        self.wake()

    def _missed(self, count: int, seq: int) -> dict[str, Any]:
        text = f"{count} event{'s' if count > 1 else ''} missed"
        kind = "missed"
        head = {"seq": seq, "time": self._unix_time(), "kind": kind, "event": kind, "text": text}
        return {**head, "count": count}
