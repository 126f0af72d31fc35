"""Floods at a node's port from another machine: the stream that is there goes on, and nothing grows.

What a flood costs is measured against the same load when a firewall rule drops it, in one run and turn by
turn: on a shared machine only ratios mean something.
"""

import statistics
import time
from collections.abc import Callable

import pytest
from flooding import RATE, flood
from joined import eventually, join_all, log_text, status, wait_connected
from streams import Meter, firewall, process_ids, resident_kb, stream

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

TOPOLOGY = Topology(
    "flood",
    "two members, a third that comes later, and a stranger",
    hosts=(
        Host("boot", Role.BOOTSTRAP),
        Host("server"),
        Host("desk"),
        Host("late"),
        Host("stranger", Role.PLAIN),
    ),
)
LEAST_RATIO = 0.7
GROWTH_KB = 8_192
"""What a process may grow by; a receive buffer's worth of kernel memory is not in it."""

SETTLE_S = 0.3


def ratio(network: Network, mode: str, rounds: int, window_s: float) -> tuple[float, str]:
    """The stream while ``server`` meets the flood, by the stream while its firewall drops it.

    Where it is too low, other programs of the machine may have had the worse turns: twice more are taken.
    """
    server, stranger = network.node("server"), network.node("stranger")
    meter, met, dropped, share = Meter(server), [], [], 0.0
    with flood(stranger, server, mode, 600.0):
        for number in range(1, 3 * rounds + 1):
            with firewall(server, stranger):
                time.sleep(SETTLE_S)
                dropped.append(meter.mbit_s(window_s))
            time.sleep(SETTLE_S)
            met.append(meter.mbit_s(window_s))
            share = statistics.median(met) / statistics.median(dropped)
            if number % rounds == 0 and share >= LEAST_RATIO:
                break
    told = f"{mode}: {[round(n) for n in met]} Mbit/s, dropped by nft {[round(n) for n in dropped]}"
    return share, told


@pytest.fixture
def network(lab: Lab) -> Network:
    """``server`` and ``desk`` joined and connected."""
    up = lab(TOPOLOGY)
    join_all(up, "server", "desk")
    return up


def nothing_grew(machine: Machine, before: dict[str, int]) -> None:
    grown = {name: resident_kb(pid) - before[name] for name, pid in process_ids(machine).items()}
    assert max(grown.values()) < GROWTH_KB, grown
    said = log_text(machine)
    assert "Traceback" not in said and " ERROR " not in said, said[-2000:]


def withstands(network: Network, modes: tuple[str, ...], rounds: int, window_s: float) -> list[str]:
    server = network.node("server")
    before = {name: resident_kb(pid) for name, pid in process_ids(server).items()}
    told = []
    with stream(network.node("desk"), server):
        for mode in modes:
            share, figures = ratio(network, mode, rounds, window_s)
            told.append(f"{share:.2f} {figures}")
            assert share >= LEAST_RATIO, told
    nothing_grew(server, before)
    return told


def test_a_stream_goes_on_under_garbage(network: Network) -> None:
    """Noise, and garbage that has the first bytes of what a node takes."""
    withstands(network, ("mixed",), 3, 0.8)
    drops = status(network.node("server"))["drops"]
    assert drops["port.kernel"] > RATE
    assert drops["port.kernel_data"] > RATE / 10


@pytest.mark.soak
def test_ten_seconds_of_every_garbage(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    told = withstands(network, ("noise", "plausible", "data", "initiations"), 5, 2.0)
    with capsys.disabled():
        print("\n" + "\n".join(told))  # noqa: T201 - the figures are what this is run for


def test_a_flood_of_initiations_brings_cookies_and_a_new_peer_gets_through(network: Network) -> None:
    """They know the key of ``server``: mac1 is right. ``late`` joins in the middle of it."""
    server, late = network.node("server"), network.node("late")
    before = {name: resident_kb(pid) for name, pid in process_ids(server).items()}
    with (
        stream(network.node("desk"), server),
        flood(network.node("stranger"), server, "initiations", 600.0),
    ):
        eventually(lambda: status(server)["drops"].get("wireguard.no_cookie", 0) > 500, "cookies are sent")
        network.join("late", server.cli_json("list", "--network-ids")["networks"][0]["network_id"])
        wait_connected(late, 2)
        assert Meter(server).mbit_s(1.0) > 10
    nothing_grew(server, before)
    assert {peer["state"] for peer in status(server)["peers"]} == {"connected"}
