"""A bootstrap node under 20,000 requests a second from all over 198.18.0.0/15: others are answered, and its
memory stays flat."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from dhtvpn.lab import namespaces
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import BOOTSTRAP_PORT, START_TIMEOUT_S, Network
from dhtvpn.lab.topology import PUBLIC_SEGMENT, Host, Role, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

TOPOLOGY = Topology(
    "bootstrap-flood",
    "a bootstrap node, one who asks it, and a stranger who forges addresses",
    hosts=(Host("boot", Role.BOOTSTRAP), Host("asker", Role.PLAIN), Host("stranger", Role.PLAIN)),
)
RATE = 20_000
SOURCES = 60_000
LEAST_ANSWERED = 0.8
"""Of what an honest node asks; on an idle machine it is nearly all."""

MEDIAN_MS = 20.0
"""Of the answers to honest nodes; on an idle machine it is below 1 ms."""

LEAST_OF_RATE = 0.9
"""Of the flood that is asked for. A forger that cannot keep it up proves nothing."""

GROWTH_OCTETS = 8 << 20
"""From before the flood: the tables that it fills."""

LASTING_S, LASTING_GROWTH_OCTETS = 10.0, 1 << 20
"""While the flood lasts, memory stays where it is."""

UNFILTERED = {"net.ipv4.conf.all.rp_filter": 0, "net.ipv4.conf.default.rp_filter": 0}


@pytest.fixture
def network(lab: Lab) -> Network:
    """The bootstrap node runs. Forged addresses pass, and answers to them end at the next router."""
    up = lab(TOPOLOGY)
    internet, boot = up.node(PUBLIC_SEGMENT), up.node("boot")
    for machine in up.machines:
        interfaces = [name for name in machine.interfaces() if name != "lo"]
        settings = {f"net.ipv4.conf.{name}.rp_filter": 0 for name in interfaces}
        namespaces.sysctl(machine.namespace, {**UNFILTERED, **settings})
    internet.run(["ip", "route", "add", "blackhole", "198.18.0.0/15"])
    child = boot.daemon(boot.dhtvpn("bootstrap", "--listen", f"{boot.ipv4}:{BOOTSTRAP_PORT}"), "bootstrap")
    boot.wait_for_port("udp", BOOTSTRAP_PORT, child, START_TIMEOUT_S)
    return up


@contextmanager
def forged(stranger: Machine, target: Machine, rate: int) -> Iterator[dict[str, float]]:
    """The flood; at the end what the forger says that it has sent is in the dictionary."""
    said: dict[str, float] = {}
    arguments = {
        "host": str(target.ipv4),
        "port": BOOTSTRAP_PORT,
        "rate": rate,
        "seconds": 600,
        "sources": SOURCES,
    }
    command = [sys.executable, str(Path(__file__).with_name("forger.py")), json.dumps(arguments)]
    forger = stranger.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert forger.stdout is not None
        assert forger.stdout.readline() == "ready\n", forger.communicate()[1]
        yield said
        assert forger.poll() is None, "the flood ended before the test"
        forger.terminate()
        said.update(json.loads(forger.communicate(timeout=10)[0]))
    finally:
        forger.kill()
        forger.communicate()


def ask(asker: Machine, target: Machine, count: int, pause_s: float, *, known: bool) -> dict[str, Any]:
    arguments = {
        "host": str(target.ipv4),
        "port": BOOTSTRAP_PORT,
        "count": count,
        "pause_s": pause_s,
        "known": known,
    }
    done = asker.run([sys.executable, str(Path(__file__).with_name("asker.py")), json.dumps(arguments)])
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def status(boot: Machine) -> dict[str, Any]:
    return boot.cli_json("bootstrap", "--listen", f"{boot.ipv4}:{BOOTSTRAP_PORT}", "--status")


def test_others_are_answered_during_a_flood_from_forged_addresses(network: Network) -> None:
    boot, asker = network.node("boot"), network.node("asker")
    ask(asker, boot, 5, 0.05, known=True)
    before = status(boot)
    with forged(network.node("stranger"), boot, RATE) as flood:
        time.sleep(1.0)
        newcomer = ask(asker, boot, 12, 0.15, known=False)
        known = ask(asker, boot, 12, 0.15, known=True)
        middle = status(boot)
        time.sleep(LASTING_S)
        after = status(boot)
    assert newcomer["answered"] >= LEAST_ANSWERED * newcomer["asked"], (newcomer, after)
    assert known["answered"] >= LEAST_ANSWERED * known["asked"], (known, after)
    assert median(newcomer["ms"]) <= MEDIAN_MS, newcomer
    assert median(known["ms"]) <= MEDIAN_MS, known
    assert flood["sent"] >= LEAST_OF_RATE * RATE * flood["seconds"], flood
    assert flood["seconds"] > LASTING_S
    assert middle["busy"]
    assert after["busy"]
    refused = after["drops"]["dht.rate_limit"] + after["drops"].get("port.kernel", 0)
    assert refused > 10_000
    assert after["memory"]["resident"] < before["memory"]["resident"] + GROWTH_OCTETS
    assert after["memory"]["resident"] < middle["memory"]["resident"] + LASTING_GROWTH_OCTETS
    said = boot.log_file("bootstrap").read_text()
    assert "Traceback" not in said
    assert " ERROR " not in said
