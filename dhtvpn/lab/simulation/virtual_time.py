"""An event loop whose clock jumps to the next timer: waiting takes no time and is left to no chance."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START_S = 1000.0
"""The loop's clock at the start, in seconds; not 0, so that "never" can be told from "at the start"."""

GIVE_UP_S = 7200.0
"""Virtual seconds after which what still waits has failed, unless the caller says otherwise."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a descriptor it moves the loop's clock."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: nothing is scheduled")
            self.loop.jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Sleeping takes no time."""

    def __init__(self) -> None:
        self._virtual_now = START_S
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual_now

    def jump(self, duration_s: float) -> None:
        """Let ``duration_s`` pass at once."""
        if duration_s > 0:
            self._virtual_now += max(duration_s, 1e-6)


def run(coroutine: Coroutine[Any, Any, T], give_up_s: float = GIVE_UP_S) -> T:
    """Run ``coroutine`` in virtual time. Raises TimeoutError after ``give_up_s`` virtual seconds."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(asyncio.wait_for(coroutine, give_up_s))
