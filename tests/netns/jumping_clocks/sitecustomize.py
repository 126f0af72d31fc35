"""Lets a test move the clocks of Python processes that run in one network namespace.

Python imports this module when it starts and finds its directory in PYTHONPATH. Where JUMPING_CLOCKS is not
set, or there is no file for the namespace, it does nothing. The file has three doubles, which are added to
CLOCK_REALTIME, CLOCK_MONOTONIC and CLOCK_BOOTTIME: see sleeping.py, which writes it.
"""

import mmap
import os
import time
from pathlib import Path

VARIABLE = "JUMPING_CLOCKS"
"""Names the directory of the files; each is called by the inode of its network namespace."""


def install(path: Path) -> None:
    """From now on the clocks are as the file says, whenever it is written."""
    with path.open("rb") as file:
        offsets = memoryview(mmap.mmap(file.fileno(), 24, prot=mmap.PROT_READ)).cast("d")
    unix, monotonic, of_clock = time.time, time.monotonic, time.clock_gettime
    by_clock = {time.CLOCK_REALTIME: 0, time.CLOCK_MONOTONIC: 1, time.CLOCK_BOOTTIME: 2}

    def clock_gettime(clock: int) -> float:
        place = by_clock.get(clock)
        return of_clock(clock) + (0.0 if place is None else offsets[place])

    time.time = lambda: unix() + offsets[0]
    time.monotonic = lambda: monotonic() + offsets[1]
    time.clock_gettime = clock_gettime


if VARIABLE in os.environ:
    _path = Path(os.environ[VARIABLE], str(Path("/proc/self/ns/net").stat().st_ino))
    if _path.exists():
        install(_path)
