"""Keeps the hints aimed: names are looked up again, for what they mean may change."""

import asyncio
from collections.abc import Sequence

from dhtvpn.discovery.hints import HintDirectory
from dhtvpn.node.bootstrap import resolve

RESOLVE_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses while no name has an address; the last one repeats."""
REFRESH_S = 300.0


async def keep_aiming(hints: HintDirectory, names: Sequence[str], families: frozenset[int]) -> None:
    """Resolve ``names`` (``HOST:PORT``) and have ``hints`` ask there; until cancelled."""
    failures = 0
    while True:
        endpoints = await resolve(names, families)
        if endpoints:
            hints.aim(endpoints)
            failures = 0
            await asyncio.sleep(REFRESH_S)
        else:
            await asyncio.sleep(RESOLVE_S[min(failures, len(RESOLVE_S) - 1)])
            failures += 1
