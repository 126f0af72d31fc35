"""Mutated datagrams through everything that bytes from the network reach, in a process of its own.

usage: storm.py COUNT SEED      Prints a line of JSON: how many, in which time, how the memory grew, what was
dropped and why. Ends with a traceback, the target and the bytes in hexadecimal at the first exception.
"""

import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from soak_targets import Target, all_targets
from virtual_time import VirtualTimeLoop

BATCH = 64
"""Datagrams of one target before the event loop gets its turn."""

PHASE, QUIET_S, CROWDED_S = 65_536, 0.01, 0.0003
"""Datagrams of a phase, and the virtual seconds that a batch takes in the two kinds of phases."""

WARM_UP = 0.2
"""The part of the run after which memory should not grow: tables are full by then."""


def resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def strike(target: Target, rng: random.Random) -> None:
    data = target.next(rng)
    try:
        target.take(data, rng)
    except BaseException:
        print(f"{target.name}: {data.hex()}", file=sys.stderr)  # noqa: T201
        raise


async def storm(targets: Iterable[Target], count: int, rng: random.Random) -> dict[str, object]:
    weighted = [target for target in targets for _ in range(target.weight)]
    began, done, warm_kb = time.perf_counter(), 0, 0
    by_target = dict.fromkeys((target.name for target in weighted), 0)
    while done < count:
        target = rng.choice(weighted)
        for _ in range(BATCH):
            strike(target, rng)
        by_target[target.name] += BATCH
        done += BATCH
        # Virtual: timers of the DHT and of ICE get their turn, and limits per second are met and not met.
        await asyncio.sleep(CROWDED_S if done // PHASE % 2 else QUIET_S)
        if not warm_kb and done > WARM_UP * count:
            warm_kb = resident_kb()
    for target in {target.name: target for target in weighted}.values():
        target.check()
    drops: dict[str, int] = {}
    for target in {target.name: target for target in weighted}.values():
        for name, number in target.drops().items():
            drops[name] = drops.get(name, 0) + number
    return {
        "count": done,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_s": round(time.process_time(), 1),
        "grown_kb": resident_kb() - warm_kb,
        "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "by_target": by_target,
        "drops": drops,
    }


def main(count: int, seed: int) -> None:
    rng = random.Random(seed)

    async def run() -> dict[str, object]:
        return await storm(all_targets(rng), count, rng)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        print(json.dumps(runner.run(run())))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
