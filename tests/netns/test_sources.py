"""Members find each other without a bootstrap node: on a link that leads nowhere, by a hint, from memory."""

import socket
import time
from collections.abc import Callable
from itertools import combinations

import pytest
from joined import eventually, join_all, overlay, peer_of, pings, status, wait_connected

from dhtvpn.discovery.lan_wire import DATAGRAM_SIZE, Note, epoch_key, unseal
from dhtvpn.endpoint import Endpoint
from dhtvpn.lab import topologies
from dhtvpn.lab.addressing import LAN_BRIDGE
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Router, Topology
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.nat.multicast import GROUP_IPV4, LAN_PORT
from dhtvpn.records.epochs import epoch_at

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


def leave_link_local(network: Network) -> None:
    """No router and no addresses but those that IPv6 makes of the link itself."""
    cut_off(network, (6,))
    for host in LINK.hosts:
        machine, interface = network.node(host.name), network.plan.link(host.name).interface
        machine.run(["ip", "-6", "address", "flush", "dev", interface, "scope", "global"])
        left = machine.run(["ip", "-o", "address", "show", "dev", interface]).stdout.splitlines()
        assert len(left) == 1 and "inet6 fe80::" in left[0], left


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


def test_a_link_with_nothing_but_link_local_addresses(lab: Lab) -> None:
    network = lab(LINK)
    leave_link_local(network)
    laptop, desk = network.node("laptop"), network.node("desk")
    network_id = network.create("laptop")
    network.join("laptop", network_id, bootstraps=())
    addresses = overlay(laptop)
    network.join("desk", network_id, bootstraps=())
    began = time.monotonic()
    wait_connected(desk, 1)
    assert pings(desk, addresses[0]).returncode == 0
    took_s = time.monotonic() - began
    assert took_s < WITHIN_S, f"{took_s:.2f} s"
    assert pings(desk, addresses[1], "-s", "1200").returncode == 0
    for machine, other in ((laptop, "desk"), (desk, "laptop")):
        peer = peer_of(machine, other)
        assert (peer["found_by"], peer["path"]) == ("lan", "direct")
        assert peer["endpoint"].startswith("[fe80::") and "%" in peer["endpoint"], peer["endpoint"]
    (kept,) = desk.state_dir.glob("networks/*/peers.json")
    eventually(lambda: "laptop" in kept.read_text(), "laptop is remembered")
    assert "fe80" not in kept.read_text()
    desk.kill_all()
    network.join("desk", network_id, bootstraps=())
    wait_connected(desk, 1)
    assert pings(desk, addresses[0]).returncode == 0


def test_a_neighbour_without_any_address_of_its_own_is_reached_by_one_that_has_some(lab: Lab) -> None:
    """Laptop keeps its addresses and publishes no link-local one; desk has nothing else. Desk's cable is
    taken out for a while, and its interface counts as another network then."""
    network = lab(LINK)
    leave_link_local(network)
    laptop, desk = network.node("laptop"), network.node("desk")
    link, interface = network.plan.link("laptop"), network.plan.link("desk").interface
    for address in (link.ipv4, link.ipv6):
        laptop.run(["ip", "address", "replace", str(address), "dev", link.interface])
    network_id = network.create("laptop")
    network.join("laptop", network_id, bootstraps=())
    network.join("desk", network_id, bootstraps=())
    wait_connected(desk, 1)
    assert peer_of(desk, "laptop")["path"] == peer_of(laptop, "desk")["path"] == "direct"
    assert pings(desk, overlay(laptop)[0]).returncode == 0
    desk.run(["ip", "link", "set", "dev", interface, "down"])
    eventually(lambda: pings(desk, overlay(laptop)[0]).returncode != 0, "the cable is out")
    desk.run(["ip", "link", "set", "dev", interface, "up"])
    eventually(lambda: pings(desk, overlay(laptop)[0]).returncode == 0, "the cable is in again")


def test_a_cable_that_is_plugged_in_later(lab: Lab) -> None:
    network = lab(LINK)
    cut_off(network, (4, 6))
    desk = network.node("desk")
    interface = network.plan.link("desk").interface
    addresses = [str(link) for link in (network.plan.link("desk").ipv4, network.plan.link("desk").ipv6)]
    desk.run(["ip", "link", "set", "dev", interface, "down"])
    network_id = network.create("laptop")
    network.join("laptop", network_id, bootstraps=())
    network.join("desk", network_id, bootstraps=())
    assert source(desk, "lan") == source(desk, "lan") | {"works": False, "detail": "no interface to speak on"}
    desk.run(["ip", "link", "set", "dev", interface, "up"])
    for address in addresses:
        desk.run(["ip", "address", "replace", address, "dev", interface])
    wait_connected(desk, 1)
    assert source(desk, "lan")["detail"] == interface
    assert peer_of(desk, "laptop")["found_by"] == "lan"


def test_a_stranger_on_the_link_learns_and_stops_nothing(lab: Lab) -> None:
    """It hears octets without a pattern, gets no answer to what it repeats or makes up, and a flood of
    datagrams of the right length neither blocks the nodes nor lasts longer than itself."""
    network = lab(LINK)
    cut_off(network, (4,))
    laptop, desk, stranger = (network.node(name) for name in ("laptop", "desk", "stranger"))
    ears = _ears(stranger)
    with ears:
        network_id = network.create("laptop")
        network.join("laptop", network_id, bootstraps=())
        network.join("desk", network_id, bootstraps=())
        wait_connected(desk, 1)
        heard = _hear(ears, 4.0)
        assert len(heard) >= 4 and {len(data) for data in heard} == {DATAGRAM_SIZE}
        for one, other in combinations(heard, 2):
            equal = sum(left == right for left, right in zip(one, other, strict=True))
            assert equal < 30, "1192 octets, of which 1 in 256 are equal by chance"
        for most in (1, 0, 0):  # desk has not heard what laptop said before desk came
            for data in heard:
                ears.sendto(data, (GROUP_IPV4, LAN_PORT))
            assert len(_repeated(_hear(ears, 1.0), heard, network_id)) <= most
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            ears.sendto(bytes(DATAGRAM_SIZE), (GROUP_IPV4, LAN_PORT))
        began = time.monotonic()
        drops = status(desk)["drops"]
        assert time.monotonic() - began < 1.5
        assert drops["lan.seal"] > 100 and _repeated(_hear(ears, 1.0), heard, network_id) == []
    desk.cli("leave")
    eventually(lambda: peer_of(laptop, "desk")["state"] != "connected", "the farewell")
    network.join("desk", network_id, bootstraps=())
    wait_connected(desk, 1)


def _ears(machine: Machine) -> socket.socket:
    """A socket of the stranger's, in the group, that does not hear itself."""
    assert machine.ipv4 is not None
    address = socket.inet_aton(str(machine.ipv4))
    opened = machine.socket()
    opened.bind((GROUP_IPV4, LAN_PORT))
    membership = socket.inet_aton(GROUP_IPV4) + address
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, address)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    opened.settimeout(0.2)
    return opened


def _repeated(said: list[bytes], before: list[bytes], network_id: str) -> list[Note]:
    """Those of ``said`` that hold no question and no record that ``before`` did not: as an answer would be.
    What members say of their own accord (an epoch that begins, a record that changed) is news."""
    known = [_content(data, network_id) for data in before]
    asked = {topic for note in known for topic in note.asked}
    told = {entry for note in known for entry in note.envelopes}
    notes = [_content(data, network_id) for data in said]
    return [note for note in notes if asked.issuperset(note.asked) and told.issuperset(note.envelopes)]


def _content(data: bytes, network_id: str) -> Note:
    epoch, secret = epoch_at(time.time()), NetworkId.decode(network_id).secret
    return unseal(data, (epoch_key(secret, near) for near in (epoch, epoch - 1)))


def _hear(ears: socket.socket, duration_s: float) -> list[bytes]:
    heard, until = [], time.monotonic() + duration_s
    while time.monotonic() < until:
        try:
            heard.append(ears.recv(2000))
        except TimeoutError:
            continue
    return heard


def test_a_hint_is_enough(lab: Lab) -> None:
    """No DHT, no link in common: laptop is told where server is, and server learns by being asked."""
    network = lab(topologies.DEMO)
    server, laptop = network.node("server"), network.node("laptop")
    network_id = network.create("server")
    network.join("server", network_id, "--discovery", "lan", bootstraps=())
    there = Endpoint(str(server.ipv4), status(server)["node"]["udp_port"])
    network.join("laptop", network_id, "--discovery", "lan", "--peer", str(there), bootstraps=())
    began = time.monotonic()
    wait_connected(laptop, 1)
    assert time.monotonic() - began < 2.0
    assert peer_of(laptop, "server")["found_by"] == peer_of(server, "laptop")["found_by"] == "hint"
    assert [part["name"] for part in status(laptop)["sources"]] == ["hint", "lan", "remembered"]
    assert source(laptop, "hint") == source(laptop, "hint") | {"works": True, "detail": str(there)}
    assert pings(laptop, overlay(server)[0]).returncode == 0


def test_the_start_does_not_wait_for_the_dht(lab: Lab) -> None:
    """Every bootstrap node is gone: the remembered peer is there as fast as ever."""
    network = lab(topologies.PAIR)
    join_all(network)
    laptop, phone, boot = (network.node(name) for name in ("laptop", "phone", "boot"))
    assert peer_of(laptop, "phone")["found_by"] == "kademlia"
    assert source(laptop, "kademlia")["works"] is True
    boot.kill_all()
    laptop.kill_all()
    network.join("laptop", "lab", bootstraps=())
    began = time.monotonic()
    wait_connected(laptop, 1)
    assert time.monotonic() - began < 1.5
    assert peer_of(laptop, "phone")["found_by"] == "remembered"
    assert source(laptop, "remembered") == source(laptop, "remembered") | {
        "works": True,
        "detail": "1 of 1 connected",
    }
    assert pings(laptop, overlay(phone)[0]).returncode == 0
