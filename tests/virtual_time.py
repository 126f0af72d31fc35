"""An event loop whose clock jumps to the next timer, so that tests of timing take no time and no chances."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

GIVE_UP_S = 7200.0
"""Virtual seconds after which a test that still waits has failed."""


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
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
        self._virtual_now = 1000.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual_now

    def jump(self, duration_s: float) -> None:
        if duration_s > 0:
            self._virtual_now += max(duration_s, 1e-6)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(asyncio.wait_for(coroutine, GIVE_UP_S))
