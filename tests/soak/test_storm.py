"""Mutated datagrams through everything that reads bytes from the network: no exception, no growth."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GROWTH_KB = 4_096
"""What a process may grow by after its tables are full: the allocator's own unrest."""

DEEP = {
    "dht.malformed_request",
    "dht.rate_limit",
    "ice.integrity",
    "stun.message",
    "wireguard.static",
    "wireguard.no_cookie",
    "dataplane.bad_packet_in",
    "dataplane.bad_segment",
    "dataplane.data_tag",
    "dataplane.source_not_allowed",
    "sealed: signature",
}
"""Reasons that only mutated datagrams find, not noise: the storm gets that far in."""

SHORT, LONG, PROCESSES = 150_000, 10_000_000, 2


def storm(count: int, seed: int, *before: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent), str(HERE.parents[1]))),
    }
    command = [*before, sys.executable, "-W", "error", str(HERE / "storm.py"), str(count), str(seed)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def outcome(process: subprocess.Popen[str], seed: int) -> dict[str, object]:
    said, complaint = process.communicate()
    assert process.returncode == 0, f"seed {seed}: {complaint[-4000:]}"
    result: dict[str, object] = json.loads(said)
    assert result["grown_kb"] < GROWTH_KB, (seed, result)
    return result


def test_a_storm_of_mutated_datagrams() -> None:
    seed = int.from_bytes(os.urandom(4))
    result = outcome(storm(SHORT, seed), seed)
    missed = DEEP - set(result["drops"])  # type: ignore[call-overload]
    assert not missed, (seed, missed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_million_mutated_datagrams() -> None:
    seeds = [int.from_bytes(os.urandom(4)) for _ in range(PROCESSES)]
    running = [storm(LONG // PROCESSES, seed, "nice", "-n", "19") for seed in seeds]
    try:
        results = [outcome(process, seed) for process, seed in zip(running, seeds, strict=True)]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert sum(int(str(result["count"])) for result in results) >= LONG
