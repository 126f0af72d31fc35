"""A port-restricted home, and a NAT with another port for each destination, in order or by chance."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from joined import eventually, overlay, status
from test_relay import path

from dhtvpn.lab import conntrack
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import SYMMETRIC, Nat
from dhtvpn.lab.network import Network
from dhtvpn.lab.topologies import CONTIGUOUS
from dhtvpn.lab.topology import Host, Role, Router, Topology
from dhtvpn.node.path_facts import Why

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

IN_ORDER = CONTIGUOUS.router("other").nat
DIRECT_WITHIN_S = 5.0
"""After the first packet; half a second is usual. The rest is for a busy machine and one attempt more."""


def pair(nat: Nat) -> Topology:
    """With another host behind the NAT."""
    hosts = (*CONTIGUOUS.hosts, Host("beside", Role.PLAIN, behind="other"))
    return replace(CONTIGUOUS, hosts=hosts, routers=(CONTIGUOUS.router("home"), Router("other", nat)))


@contextmanager
def others(network: Network, mappings_per_s: float) -> Iterator[None]:
    """``beside`` makes so many new mappings of the NAT in front of it."""
    done = threading.Event()
    destination = (str(network.node("boot3").ipv4), 9)

    def send() -> None:
        while mappings_per_s and not done.wait(1 / mappings_per_s):
            with network.node("beside").socket(socket.AF_INET) as one:
                one.sendto(b"other", destination)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def pinging(machine: Machine, peer: Machine) -> Iterator[None]:
    """Packets that a path is wanted for."""
    ping = machine.popen(["ping", "-i", "0.2", overlay(peer)[0]])
    try:
        yield
    finally:
        ping.terminate()
        ping.wait()


def joined(lab: Lab, nat: Nat, *members: str) -> tuple[Network, Machine, Machine]:
    network = lab(pair(nat))
    network.start_bootstraps()
    network_id = network.create("laptop")
    for member in members:
        network.join(member, network_id)
    return network, network.node("laptop"), network.node("phone")


@pytest.mark.parametrize("mappings_per_s", [0, 10])
@pytest.mark.parametrize("members", [("laptop", "phone"), ("phone", "laptop")], ids=lambda names: names[1])
def test_ports_in_order_lead_to_a_direct_path(
    lab: Lab, members: tuple[str, str], mappings_per_s: int
) -> None:
    network, laptop, phone = joined(lab, IN_ORDER, *members)
    with others(network, mappings_per_s), pinging(phone, laptop):
        eventually(lambda: status(phone)["peers"] and path(phone, "laptop") == "direct", "direct", 5)
        eventually(lambda: path(laptop, "phone") == "direct", "direct on both sides", DIRECT_WITHIN_S)
        for machine, peer in ((phone, "laptop"), (laptop, "phone")):
            eventually(
                lambda machine=machine, peer=peer: (
                    machine.cli_json("why", peer)["path"]["why"] == Why.PREDICTION.value
                ),
                "the reason",
                DIRECT_WITHIN_S,
            )
    checked = [pair for pair in laptop.cli_json("why", "phone")["pairs"] if pair["kind"] == "predicted"]
    assert 0 < len(checked) <= 16
    assert all(pair["requests"] <= 1 for pair in checked if pair["result"] != "succeeded")
    prediction = phone.cli_json("why", "laptop")["prediction"]
    assert {pair["remote"] for pair in checked} <= set(prediction["guesses"]) and prediction["failed"] == 0
    assert "foreseen port" in phone.cli("why", "laptop").stdout


def test_a_new_mapping_is_foreseen_again_when_the_router_has_forgotten_the_old_one(lab: Lab) -> None:
    network, laptop, phone = joined(lab, IN_ORDER, "laptop", "phone")
    with pinging(phone, laptop):
        eventually(lambda: status(phone)["peers"] and path(phone, "laptop") == "direct", "direct", 5)
        eventually(lambda: path(laptop, "phone") == "direct", "on both sides", DIRECT_WITHIN_S)
        conntrack.flush(network.node("other").namespace)  # a reboot would begin with the first port again

        def ways() -> list[str]:
            changes = phone.cli_json("why", "laptop")["changes"]
            return [each["to"]["path"] for each in changes if each["to"] is not None]

        eventually(lambda: ways() == 2 * ["relayed", "direct"], "by the relay, then directly again", 30)
    assert phone.cli_json("why", "laptop")["path"]["why"] == Why.PREDICTION.value


def test_ports_by_chance_are_not_foreseen(lab: Lab) -> None:
    _, laptop, phone = joined(lab, SYMMETRIC, "laptop", "phone")
    with pinging(phone, laptop):
        eventually(lambda: status(phone)["peers"] and path(phone, "laptop") == "relayed", "relayed", 10)
        eventually(lambda: phone.cli_json("why", "laptop")["attempts"] > 1, "a whole attempt", 20)
    for machine, peer in ((phone, "laptop"), (laptop, "phone")):
        explained = machine.cli_json("why", peer)
        assert explained["path"]["path"] == "relayed" and explained["prediction"] is None
        assert [pair for pair in explained["pairs"] if pair["kind"] == "predicted"] == []


@pytest.mark.parametrize(("nat", "in_order"), [(IN_ORDER, True), (SYMMETRIC, False)])
def test_netcheck_tells_the_order_of_ports(lab: Lab, nat: Nat, in_order: bool) -> None:
    network = lab(pair(nat))
    network.start_bootstraps()
    nodes = [word for end in network.bootstrap_endpoints("phone") for word in ("--bootstrap", str(end))]
    found = network.node("phone").cli_json("netcheck", "--no-port-mapping", *nodes)
    assert found["ipv4"]["ports_in_order"] is in_order
    assert found["direct_with"]["port-restricted"] is in_order
    assert found["direct_with"]["symmetric"] is False
