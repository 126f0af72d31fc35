"""What survives: a killed member, a dead bootstrap node, a dead engine; and what is left behind: nothing."""

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from joined import (
    CONNECT_TIMEOUT_S,
    eventually,
    join_all,
    overlay,
    peer_of,
    pings,
    status,
    traces,
    wait_connected,
)

from dhtvpn.lab import topologies
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]


def identity_of(machine: Machine) -> tuple[str, ...]:
    node = status(machine)["node"]
    return node["id"], node["ipv4"], node["ipv6"], str(node["udp_port"])


def test_a_killed_member_comes_back_as_itself(lab: Lab) -> None:
    network = lab(topologies.PAIR)
    join_all(network)
    laptop, phone = network.node("laptop"), network.node("phone")
    before, addresses = identity_of(laptop), overlay(phone)
    laptop.kill_all()
    assert "dhtvpn0" not in laptop.interfaces()
    network.join("laptop", "lab", bootstraps=())
    wait_connected(laptop, 1)
    assert identity_of(laptop) == before
    assert all(pings(laptop, address).returncode == 0 for address in addresses)
    assert pings(phone, before[1]).returncode == 0


def test_life_goes_on_without_any_bootstrap_node(lab: Lab) -> None:
    network = lab(topologies.PAIR)
    join_all(network)
    laptop, phone, boot = (network.node(name) for name in ("laptop", "phone", "boot"))
    address = overlay(phone)[0]
    boot.kill_all()
    assert pings(laptop, address).returncode == 0, "the tunnel needs no directory"
    laptop.kill_all()
    network.join("laptop", "lab", bootstraps=())
    wait_connected(laptop, 1)
    assert pings(laptop, address).returncode == 0, "what is remembered is enough"


def test_the_engine_is_replaced_when_it_dies(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    join_all(network)
    server, desk = network.node("server"), network.node("desk")
    address = overlay(desk)[0]
    os.kill(status(server)["engine"]["pid"], signal.SIGKILL)
    eventually(lambda: status(server)["engine"]["restarts"] == 1, "a new engine")
    eventually(lambda: pings(server, address).returncode == 0, "the session is back")


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM", "leave", "kill -9"])
def test_nothing_is_left_over(lab: Lab, way: str) -> None:
    network = lab(topologies.PUBLIC)
    network.start_bootstraps()
    network_id = network.create("server")
    network.join("desk", network_id)
    server = network.node("server")
    before = traces(server)
    contacts = [word for contact in network.bootstrap_endpoints() for word in ("--bootstrap", str(contact))]
    child = server.popen(
        server.dhtvpn("join", network_id, "--name", "server", *contacts), stdout=subprocess.PIPE
    )
    eventually(lambda: server.cli("status", check=False).returncode == 0, "the node runs")
    wait_connected(server, 1)
    assert traces(server) != before
    match way:
        case "Ctrl-C":
            child.send_signal(signal.SIGINT)
        case "SIGTERM":
            child.send_signal(signal.SIGTERM)
        case "leave":
            server.cli("leave")
        case _:
            server.kill_all()
            # What a kill -9 cannot tidy up, the next node does: here it comes and goes.
            network.join("server", "lab")
            server.cli("leave")
    eventually(lambda: traces(server) == before, f"no trace after {way}: {traces(server)} != {before}")
    if way in ("Ctrl-C", "SIGTERM"):
        assert child.wait(timeout=5) == 0
    desk = network.node("desk")
    eventually(lambda: peer_of(desk, "server")["state"] != "connected", "the others are told")


def test_a_dead_node_is_noticed_and_found_again(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    join_all(network)
    server, desk = network.node("server"), network.node("desk")
    server.kill_all()
    eventually(lambda: peer_of(desk, "server")["state"] != "connected", "the path is lost", 40)
    network.join("server", "lab")
    desk.cli("wait", "--peer", "server", "--timeout", str(CONNECT_TIMEOUT_S))
