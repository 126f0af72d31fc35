"""Members find each other through the DHT, behind real NAT, and exchange traffic."""

import hashlib
import os
import socket
import threading
from collections.abc import Callable

import pytest
from joined import eventually, join_all, log_text, overlay, peer_of, pings, status, wait_connected

from dhtvpn import identity
from dhtvpn.endpoint import Endpoint
from dhtvpn.lab import topologies
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import PUBLIC_SEGMENT, Topology
from dhtvpn.membership.addresses import ipv4_address
from dhtvpn.membership.network_id import NetworkId

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

TRANSFER = 200_000_000  # bytes, the issue's own figure
PIECE = 1 << 20


def test_three_members_make_a_full_mesh(lab: Lab) -> None:
    network = lab(topologies.DEMO)
    join_all(network)
    members = {name: network.node(name) for name in ("laptop", "phone", "server")}
    for name, machine in members.items():
        for other in members.keys() - {name}:
            assert peer_of(machine, other)["path"] == "direct"
            for address in overlay(members[other]):
                assert pings(machine, address).returncode == 0, f"{name} to {other} at {address}"
    laptop = status(members["laptop"])
    assert laptop["dht"]["records_published"] >= 1 and laptop["dht"]["nodes"] >= 1
    assert status(members["server"])["nat"]["mapping"] == "none"
    assert [peer["state"] for peer in laptop["peers"]] == ["connected", "connected"]
    offloads = laptop["engine"]["offloads"]
    assert {"vnet_header", "tso4", "tso6"} <= set(offloads)
    cipher = "aes-256-gcm" if "aes" in offloads else "chacha20-poly1305"
    assert [peer["cipher"] for peer in laptop["peers"]] == [cipher, cipher]


def test_two_stun_servers_tell_the_mapping(lab: Lab) -> None:
    network = lab(topologies.TWO_BOOTSTRAPS)
    join_all(network)
    laptop = network.node("laptop")
    eventually(lambda: status(laptop)["nat"]["mapping"] == "endpoint-independent", "mapping known")
    filtering = "address-and-port-dependent"
    eventually(lambda: status(laptop)["nat"]["filtering"] == filtering, "filtering known")
    (public,) = status(laptop)["nat"]["public_endpoints"]
    assert public.startswith("198.18.") and public.endswith(f":{status(laptop)['node']['udp_port']}")


def test_a_member_with_ipv6_alone(lab: Lab) -> None:
    network = lab(topologies.IPV6_ONLY)
    join_all(network)
    six = network.node("six")
    for name in ("server", "laptop"):
        assert peer_of(six, name)["endpoint"].startswith("[2001:db8:")
        for address in overlay(network.node(name)):
            assert pings(six, address).returncode == 0


def test_a_pair_without_a_direct_path_is_told_so(lab: Lab) -> None:
    """Port-restricted against symmetric has no direct path: the state says it instead of hanging."""
    network = lab(topologies.SYMMETRIC_PAIR)
    network.start_bootstraps()
    network_id = network.create("laptop")
    for member in ("laptop", "phone"):
        network.join(member, network_id)
    laptop = network.node("laptop")
    eventually(lambda: status(laptop)["peers"], "the record is found")
    eventually(lambda: peer_of(laptop, "phone")["state"] == "unreachable", "the verdict", 60)
    assert peer_of(laptop, "phone")["path"] is None
    waiting = laptop.cli("wait", "--peer", "phone", "--timeout", "1", check=False)
    assert waiting.returncode == 4 and "phone" in waiting.stderr


@pytest.mark.parametrize("topology", [topologies.PUBLIC, topologies.PAIR], ids=lambda topology: topology.name)
def test_two_hundred_megabytes_arrive_intact(lab: Lab, topology: Topology) -> None:
    network = lab(topology)
    join_all(network)
    first, second = (network.node(host.name) for host in topology.members)
    assert _transfer(first, second) == _transfer(second, first) == TRANSFER


def _transfer(sender: Machine, receiver: Machine) -> int:
    """Send random bytes over TCP through the tunnel; returns how many arrived, with the same checksum."""
    address = overlay(receiver)[0]
    sums: dict[str, str] = {}
    received = 0

    def send() -> None:
        digest = hashlib.blake2b()
        with sender.socket(kind=socket.SOCK_STREAM) as out:
            out.settimeout(60)
            out.connect((address, port))
            left = TRANSFER
            while left:
                piece = os.urandom(min(PIECE, left))
                digest.update(piece)
                out.sendall(piece)
                left -= len(piece)
        sums["sent"] = digest.hexdigest()

    with receiver.socket(kind=socket.SOCK_STREAM) as listener:
        listener.settimeout(60)
        listener.bind((address, 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        thread = threading.Thread(target=send)
        thread.start()
        connection, _ = listener.accept()
        digest = hashlib.blake2b()
        with connection:
            connection.settimeout(60)
            while piece := connection.recv(PIECE):
                digest.update(piece)
                received += len(piece)
        thread.join()
    assert sums["sent"] == digest.hexdigest()
    return received


def test_nothing_is_lost_at_the_mtu(lab: Lab) -> None:
    """What fits the path passes whole; what does not gets an error that names the MTU, or is fragmented
    where that is allowed; a narrow underlay does not change this."""
    network = lab(topologies.PAIR)
    join_all(network)
    laptop, phone = network.node("laptop"), network.node("phone")
    ipv4, ipv6 = overlay(phone)
    router = network.node("laptop-home")

    def check(mtu: int) -> None:
        assert pings(laptop, ipv4, "-M", "do", "-s", str(mtu - 28)).returncode == 0
        assert pings(laptop, ipv6, "-s", str(max(mtu, 1280) - 48)).returncode == 0
        too_long = pings(laptop, ipv4, "-M", "do", "-s", str(mtu - 27))
        assert too_long.returncode != 0 and f"mtu={mtu}" in too_long.stdout + too_long.stderr
        assert pings(laptop, ipv4, "-M", "dont", "-s", "4000").returncode == 0
        assert pings(laptop, ipv6, "-s", "4000").returncode == 0

    def both_have(mtu: int) -> bool:
        return peer_of(laptop, "phone")["mtu"] == peer_of(phone, "laptop")["mtu"] == mtu

    eventually(lambda: both_have(1440), "the path MTU")
    check(1440)
    wan = network.plan.link("laptop-home")
    router.run(["ip", "link", "set", "dev", wan.interface, "mtu", "1400"])
    network.node(PUBLIC_SEGMENT).run(["ip", "link", "set", "dev", wan.upstream_port, "mtu", "1400"])
    eventually(
        lambda: pings(laptop, ipv4, "-M", "dont", "-s", "1400").returncode == 0 and both_have(1340),
        "packets get through on the narrow path, and its MTU is found",
    )
    check(1340)


def test_addresses_without_a_member_get_an_icmp_answer(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    join_all(network)
    server = network.node("server")
    nobody = str(overlay(server)[0]).rsplit(".", 1)[0] + ".250"
    assert "Unreachable" in pings(server, nobody).stdout
    eventually(lambda: status(server)["drops"].get("dataplane.no_peer"), "the engine's next report")


def test_a_public_member_is_bootstrap_node_enough(lab: Lab) -> None:
    """No volunteer at all: the first member knows nobody, the second is told where the first one is."""
    network = lab(topologies.DEMO)
    server, laptop = network.node("server"), network.node("laptop")
    network_id = network.create("server")
    network.join("server", network_id, bootstraps=())
    first = Endpoint(str(server.ipv4), status(server)["node"]["udp_port"])
    network.join("laptop", network_id, bootstraps=(first,))
    wait_connected(laptop, 1)
    network.join("phone", network_id, bootstraps=(first,))
    wait_connected(laptop, 2)
    assert pings(laptop, overlay(network.node("phone"))[0]).returncode == 0


def test_two_members_that_draw_one_address_settle_it(lab: Lab) -> None:
    """Both have the same IPv4 address at first; the younger one moves, and everything works."""
    network = lab(topologies.PUBLIC)
    network.start_bootstraps()
    members = [network.node(name) for name in ("server", "desk")]
    network_id = NetworkId.decode(members[0].cli("create", "lab", "--ipv4", "10.9.8.0/29").stdout.split()[0])
    seeds = _seeds_with_one_address(network_id)
    for machine, seed in zip(members, seeds, strict=True):
        directory = machine.state_dir / "networks" / "lab"
        directory.mkdir(parents=True, exist_ok=True)
        identity.load_or_create(directory / "identity.json", lambda _, seed=seed: seed)
        network.join(machine.name, network_id.encode(), "--network", "lab")
    server, desk = members
    wait_connected(server, 1)
    eventually(lambda: overlay(server)[0] != overlay(desk)[0], "the younger one has moved")
    assert "moved to" in log_text(desk) and "moved to" not in log_text(server)
    eventually(lambda: peer_of(server, "desk")["ipv4"] == overlay(desk)[0], "the others know")
    assert pings(server, overlay(desk)[0]).returncode == 0
    assert pings(desk, overlay(server)[0]).returncode == 0


def _seeds_with_one_address(network_id: NetworkId) -> tuple[bytes, bytes]:
    seen: dict[object, bytes] = {}
    for number in range(100):
        seed = number.to_bytes(32, "big")
        address = ipv4_address(network_id, identity.Identity.from_seed(seed).node_key)
        if address in seen:
            return seen[address], seed
        seen[address] = seed
    raise AssertionError("six addresses and a hundred keys without a collision")


def test_ping_and_peers_commands(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    join_all(network)
    server = network.node("server")
    desk = peer_of(server, "desk")
    for name in ("desk", desk["id"][:5], desk["ipv4"], desk["ipv6"]):
        replies = server.cli("ping", name, "--count", "2").stdout
        assert replies.count("direct") >= 2, replies
    gone = server.cli("ping", "nobody", check=False)
    assert gone.returncode == 3 and "nobody" in gone.stderr
    table = server.cli("status").stdout
    assert "desk" in table and all(len(line) <= 80 for line in table.splitlines())
    assert "desk" in server.cli("peers").stdout
    wait_connected(server, 1)
