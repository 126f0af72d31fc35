"""wireguard-go of Debian beside a node: it moves, the node moves, its key is wrong, the node is flooded, keys
change."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flooding import flood
from joined import eventually, overlay, peer_of, pings, status
from stock_peers import (
    Setup,
    configure,
    configure_without_endpoint,
    endpoint,
    handshakes,
    interface,
    public_key,
    set_peer,
    stock_peer,
)

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Topology
from dhtvpn.wireguard.transport import OVERHEAD

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]
TOPOLOGY = Topology(
    "stock",
    "a node, wireguard-go, and a stranger",
    hosts=(
        Host("boot", Role.BOOTSTRAP),
        Host("server"),
        Host("desk", Role.PLAIN),
        Host("stranger", Role.PLAIN),
    ),
)
FLOOD_RATE = 5_000  # initiations a second; past 200 a node asks for cookies


class Room:
    """A node on ``server``, wireguard-go on ``desk``, and what the node printed for it."""

    def __init__(self, network: Network) -> None:
        network.start_bootstraps()
        self.server, self.desk = network.node("server"), network.node("desk")
        self.stranger = network.node("stranger")
        network.join("server", network.create("server"))
        self.ipv4 = overlay(self.server)[0]
        self.setup: Setup = {}

    @contextmanager
    def attached(self, keepalive: str = "off") -> Iterator[None]:
        """While wireguard-go has a session with the node."""
        with stock_peer(self.desk) as (private, public):
            self.add(public)
            configure(self.desk, private, self.setup, keepalive)
            eventually(self.stock_ping, "a session")
            yield

    def add(self, public: str) -> None:
        self.setup = self.server.cli_json("stock-peer", "add", "phone", "--public-key", public)

    def stock_ping(self) -> bool:
        return pings(self.desk, self.ipv4).returncode == 0

    def node_ping(self) -> bool:
        return pings(self.server, str(self.setup["ipv4"])).returncode == 0

    def node_sends_to(self) -> str:
        return str(peer_of(self.server, "phone")["endpoint"])


@pytest.fixture
def room(lab: Lab) -> Room:
    return Room(lab(TOPOLOGY))


def move(machine: Machine) -> tuple[str, str]:
    """Give a machine another underlay address of the same network; returns the old and the new one."""
    old = str(machine.ipv4)
    links = json.loads(machine.run(["ip", "-json", "-4", "address", "show", "to", old]).stdout)
    name, length = next((link["ifname"], link["addr_info"][0]["prefixlen"]) for link in links if link)
    (route,) = json.loads(machine.run(["ip", "-json", "route", "show", "default"]).stdout)
    first, _, last = old.rpartition(".")
    new = f"{first}.{int(last) + 100}"
    machine.run(["ip", "address", "del", f"{old}/{length}", "dev", name])
    machine.run(["ip", "address", "add", f"{new}/{length}", "dev", name])
    machine.run(["ip", "route", "replace", "default", "via", route["gateway"], "dev", name])
    return old, new


def rebind(machine: Machine, port: int) -> None:
    """Give wireguard-go another port. It also forgets the address that it has sent from, which it otherwise
    keeps to until it has heard nothing for 15 s, though the machine has it no more."""
    machine.run(["wg", "set", interface(machine), "listen-port", str(port)])


def test_the_node_follows_wireguard_go_to_another_port_and_address(room: Room) -> None:
    with room.attached():
        began = handshakes(room.desk)
        rebind(room.desk, 45454)
        assert room.stock_ping()
        eventually(lambda: room.node_sends_to().endswith(":45454"), "the new port")
        assert room.node_ping()
        _, new = move(room.desk)
        rebind(room.desk, 45455)
        assert room.stock_ping()
        eventually(lambda: room.node_sends_to() == f"{new}:45455", "the new address")
        assert room.node_ping()
        assert handshakes(room.desk) == began, "by data messages alone"


def test_wireguard_go_follows_the_node_to_another_address(room: Room) -> None:
    with room.attached():
        began = handshakes(room.desk)
        old, new = move(room.server)
        assert endpoint(room.desk).startswith(f"{old}:")
        eventually(room.node_ping, "the node speaks from its new address")
        assert endpoint(room.desk).startswith(f"{new}:")
        assert room.stock_ping()
        assert handshakes(room.desk) == began, "by data messages alone"


def test_keepalives_of_wireguard_go_reach_the_node(room: Room) -> None:
    with room.attached(keepalive="1"):
        before = peer_of(room.server, "phone")["rx_bytes"]
        eventually(lambda: peer_of(room.server, "phone")["rx_bytes"] >= before + 2 * OVERHEAD, "two of them")


def test_a_key_that_the_node_does_not_know_gets_nothing(room: Room) -> None:
    with stock_peer(room.desk) as (private, _):
        room.add(public_key(room.desk, room.desk.run(["wg", "genkey"]).stdout))
        configure(room.desk, private, room.setup)
        assert pings(room.desk, room.ipv4, "-w", "1").returncode != 0
        assert handshakes(room.desk) == 0
        assert status(room.server)["drops"]["wireguard.stranger"] >= 1


def test_a_key_of_the_node_that_is_wrong_gets_nothing(room: Room) -> None:
    """The initiation is sealed for somebody else: mac1 is wrong, and silence is the answer."""
    with stock_peer(room.desk) as (private, public):
        room.add(public)
        wrong = public_key(room.desk, room.desk.run(["wg", "genkey"]).stdout)
        configure(room.desk, private, {**room.setup, "node_public_key": wrong})
        assert pings(room.desk, room.ipv4, "-w", "1").returncode != 0
        assert handshakes(room.desk) == 0
        assert status(room.server)["drops"]["wireguard.mac1"] >= 1


def test_wireguard_go_gets_in_with_a_cookie_while_the_node_is_flooded(room: Room) -> None:
    with room.attached():
        began = handshakes(room.desk)
        set_peer(room.desk, room.setup, "remove")
        with flood(room.stranger, room.server, "initiations", 600.0, rate=FLOOD_RATE):
            eventually(lambda: no_cookie(room.server) > FLOOD_RATE, "the node asks for cookies")
            configure_without_endpoint(room.desk, room.setup)
            set_peer(room.desk, room.setup, "endpoint", str(room.setup["endpoint"]))
            eventually(room.stock_ping, "a session in spite of the flood", 30)
            asked = no_cookie(room.server)
            eventually(lambda: no_cookie(room.server) > asked, "the node asks for cookies still")
        assert handshakes(room.desk) > began


def no_cookie(machine: Machine) -> int:
    """How many handshake messages were answered with a cookie reply only."""
    return int(status(machine)["drops"].get("wireguard.no_cookie", 0))


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_nothing_is_lost_when_keys_change(room: Room) -> None:
    """wireguard-go, the initiator, makes new keys after 120 s: a ping runs through it, by the clock on the
    wall."""
    with room.attached():
        first = handshakes(room.desk)
        count = 280
        command = ["ping", "-n", "-q", "-i", "0.5", "-c", str(count), room.ipv4]
        output = room.desk.run(command, timeout_s=200).stdout
        assert re.search(rf" {count} received", output), output
        assert handshakes(room.desk) >= first + 120
