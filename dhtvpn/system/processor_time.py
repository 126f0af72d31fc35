"""How long this thread has had a processor, or has waited for one: the kernel's account of it.

A thread that is late because the machine is busy has waited in a run queue. One that was stopped, frozen or
suspended has not: the kernel does not count a process as waiting that must not run.
"""

import os
from typing import Final

_SCHEDSTAT: Final = "/proc/self/schedstat"
"""Of the thread that started the process: nanoseconds on a processor, nanoseconds in a run queue, turns.
Linux, Documentation/scheduler/sched-stats.rst."""


class ProcessorTime:
    """To be opened before the process gives up its files."""

    def __init__(self, path: str = _SCHEDSTAT) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1

    def wanted(self) -> float:
        """Seconds so far in which the thread ran or waited to run; 0 where the kernel keeps no account."""
        if self._descriptor < 0:
            return 0.0
        try:
            ran, waited, _ = os.pread(self._descriptor, 128, 0).split()
            return (int(ran) + int(waited)) / 1e9
        except (OSError, ValueError):
            return 0.0

    def close(self) -> None:
        """Let go of the account."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
