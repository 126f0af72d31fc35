"""How the laboratory's commands talk while they work, and how they end."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from dhtvpn.cli import output


def progress_lines() -> Callable[[str], None]:
    """Lines on stderr with the seconds since now, so that stdout holds only the result."""
    started = time.monotonic()
    return lambda text: output.notice(f"{time.monotonic() - started:6.1f} s  {text}")


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end us as Ctrl-C does: through every ``finally`` on the way."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        output.notice("interrupted: the laboratory is removed")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
