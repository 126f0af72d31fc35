"""Wall-clock time of a simulation: the loop's virtual seconds, put onto the Unix scale."""

import asyncio

from dhtvpn.lab.simulation.virtual_time import START_S

UNIX_START = 1_800_000_300
"""Five minutes into an hour, so that short experiments stay within one epoch."""


def unix_time() -> float:
    """Unix seconds in the running simulation."""
    return UNIX_START + asyncio.get_running_loop().time() - START_S


def monotonic() -> float:
    """Monotonic seconds in the running simulation."""
    return asyncio.get_running_loop().time()
