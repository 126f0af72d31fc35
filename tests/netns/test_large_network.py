"""A network with more members than its roster holds, in small: the size of the roster is lowered to two, and
members behind NATs find each other with the first packet."""

import time
from collections.abc import Callable

import pytest
from joined import eventually, overlay, pings, status, wait_connected

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import JOIN_TIMEOUT_S, Network
from dhtvpn.lab.topology import PORT_RESTRICTED, Host, Role, Router, Topology

pytestmark = pytest.mark.netns

VERDICT_WITHIN_S = 3.5
"""The lookup ends after 3 s at most; the rest is for ping to start and for the answer."""

CROWD = Topology(
    "crowd",
    "two members that fill the roster, and two behind a NAT each",
    hosts=(
        Host("boot", Role.BOOTSTRAP),
        Host("one"),
        Host("two"),
        Host("three", behind="home"),
        Host("four", behind="carrier"),
    ),
    routers=(Router("home", PORT_RESTRICTED), Router("carrier", PORT_RESTRICTED)),
)


def join(network: Network, member: str, network_id: str) -> Machine:
    machine = network.node(member)
    contacts = [word for e in network.bootstrap_endpoints(member) for word in ("--bootstrap", str(e))]
    command = machine.dhtvpn("join", network_id, "--name", member, *contacts, "--detach")
    machine.run(["env", "DHTVPN_ROSTER_SIZE=2", *command], timeout_s=JOIN_TIMEOUT_S)
    return machine


def peers(machine: Machine) -> dict[str, str]:
    return {peer["name"]: peer["state"] for peer in status(machine)["peers"]}


def test_members_find_each_other_by_the_first_packet(lab: Callable[[Topology], Network]) -> None:
    network = lab(CROWD)
    network.start_bootstraps()
    network_id = network.create("one")
    one, two = (join(network, name, network_id) for name in ("one", "two"))
    for machine in (one, two):
        wait_connected(machine, 1)
    three, four = (join(network, name, network_id) for name in ("three", "four"))
    for machine in (three, four):
        eventually(lambda m=machine: status(m)["dht"]["records_published"] > 0, "it is found")  # type: ignore[misc]
        eventually(lambda m=machine: not peers(m), "it is connected to nobody")  # type: ignore[misc]

    for address in overlay(four):
        found = pings(three, address, "-w", "10")
        assert found.returncode == 0, found.stdout
        assert peers(three) == {"four": "connected"}
        assert peers(four) == {"three": "connected"}

    nobody = overlay(three)[0].rsplit(".", 1)[0] + ".250"
    began = time.monotonic()
    refused = pings(three, nobody, "-w", "10", "-W", "10")
    assert "Unreachable" in refused.stdout
    assert time.monotonic() - began < VERDICT_WITHIN_S

    reply = three.cli("ping", "one", "--count", "1")
    assert "one" in reply.stdout
    assert peers(three)["one"] == "connected" and "two" not in peers(three)
