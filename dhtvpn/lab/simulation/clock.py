"""Wall-clock time of a simulation: the loop's virtual seconds, put onto the Unix scale."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from dhtvpn.lab.simulation.virtual_time import START_S
from dhtvpn.node import announcer, finder

UNIX_START = 1_800_000_300
"""Five minutes into an hour, so that short experiments stay within one epoch."""


def unix_time() -> float:
    """Unix seconds in the running simulation."""
    return UNIX_START + asyncio.get_running_loop().time() - START_S


def monotonic() -> float:
    """Monotonic seconds in the running simulation."""
    return asyncio.get_running_loop().time()


@contextmanager
def simulated() -> Iterator[None]:
    """Until the end the announcer and the finder, which read the process's clock, read this one."""
    virtual = SimpleNamespace(time=unix_time, monotonic=monotonic)
    modules = (announcer, finder)
    real = [vars(module)["time"] for module in modules]
    for module in modules:
        vars(module)["time"] = virtual
    try:
        yield
    finally:
        for module, was in zip(modules, real, strict=True):
            vars(module)["time"] = was
