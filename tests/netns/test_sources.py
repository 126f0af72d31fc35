"""Members find each other without a bootstrap node: on a link that leads nowhere, by a hint, from memory."""

import time
from collections.abc import Callable

import pytest
from joined import overlay, peer_of, pings, status, wait_connected

from dhtvpn.lab.addressing import LAN_BRIDGE
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Router, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

WITHIN_S = 1.0
"""From the moment the second member runs to a ping through the tunnel."""

LINK = Topology(
    "link",
    "three machines on one link that leads nowhere",
    hosts=tuple(Host(name, behind="bridge", ipv6=True) for name in ("laptop", "desk", "stranger")),
    routers=(Router("bridge", ipv6=True),),
)


def cut_off(network: Network, families: tuple[int, ...]) -> None:
    """Leave of the router its bridge, and of the machines' addresses those of ``families``."""
    bridge = network.node("bridge")
    bridge.run(["ip", "address", "flush", "dev", LAN_BRIDGE])
    bridge.run(["ip", "link", "set", "dev", network.plan.link("bridge").interface, "down"])
    for host in LINK.hosts:
        machine, interface = network.node(host.name), network.plan.link(host.name).interface
        for family in (4, 6):
            machine.run(["ip", f"-{family}", "route", "flush", "default"], check=False)
            if family not in families:
                machine.run(["ip", f"-{family}", "address", "flush", "dev", interface])


def source(machine: Machine, name: str) -> dict[str, object]:
    (found,) = [part for part in status(machine)["sources"] if part["name"] == name]
    return dict(found)


@pytest.mark.parametrize("families", [(4,), (6,), (4, 6)], ids=["IPv4", "IPv6", "both"])
def test_two_members_on_a_link_that_leads_nowhere(lab: Lab, families: tuple[int, ...]) -> None:
    network = lab(LINK)
    cut_off(network, families)
    laptop, desk = network.node("laptop"), network.node("desk")
    network_id = network.create("laptop")
    network.join("laptop", network_id, bootstraps=())
    assert source(laptop, "lan")["works"] is True
    address = overlay(laptop)[0]
    network.join("desk", network_id, bootstraps=())
    began = time.monotonic()
    wait_connected(desk, 1)
    assert pings(desk, address).returncode == 0
    took_s = time.monotonic() - began
    assert took_s < WITHIN_S, f"{took_s:.2f} s"
    assert {peer_of(laptop, "desk")["found_by"], peer_of(desk, "laptop")["found_by"]} == {"lan"}
    assert status(desk)["confinement"]["system_calls"] is True
