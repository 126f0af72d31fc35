"""What holds of the laboratory's routers besides mapping, filtering and allocation (test_every_nat.py): early
packets, several hosts, closed ports, lifetime, IPv6, two routers in a row.

Sockets of the test itself are opened inside the namespaces. "Nothing came" is never a matter of
waiting: a packet that must pass is sent after the one that must not, on the same way.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import (
    ADDRESS_RESTRICTED,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Mapping,
    Nat,
)
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Router, Topology

pytestmark = pytest.mark.netns

LabFactory = Callable[[Topology], Network]
EVERY_NAT = [OPEN_FILTERING, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC]
KEEPS_PORT = [nat for nat in EVERY_NAT if nat.mapping is Mapping.ENDPOINT_INDEPENDENT]
RECEIVE_TIMEOUT_S = 3.0
INSIDE_PORT = 41000


def one_home(nat: Nat, *, ipv6: bool = False) -> Topology:
    """Two public servers, and two hosts behind one router."""
    return Topology(
        "one-home",
        "for these tests",
        hosts=(
            Host("server", Role.PLAIN, ipv6=ipv6),
            Host("stranger", Role.PLAIN, ipv6=ipv6),
            Host("inside", Role.PLAIN, behind="home", ipv6=ipv6),
            Host("beside", Role.PLAIN, behind="home", ipv6=ipv6),
        ),
        routers=(Router("home", nat, ipv6=ipv6),),
    )


class Sockets:
    """UDP sockets inside machines of one network, closed together."""

    def __init__(self, network: Network, stack: ExitStack) -> None:
        self.network = network
        self._stack = stack

    def open(self, machine: str, port: int, family: int = socket.AF_INET) -> socket.socket:
        """A bound socket on ``machine``."""
        opened = self._stack.enter_context(self.network.node(machine).socket(family))
        opened.bind(("", port))
        opened.settimeout(RECEIVE_TIMEOUT_S)
        return opened

    def address(self, machine: str, port: int) -> tuple[str, int]:
        return str(self.network.node(machine).ipv4), port

    def address6(self, machine: str, port: int) -> tuple[str, int]:
        return str(self.network.node(machine).ipv6), port


@pytest.fixture
def sockets(lab: LabFactory) -> Iterator[Callable[[Topology], Sockets]]:
    with ExitStack() as stack:
        yield lambda topology: Sockets(lab(topology), stack)


def seen_from(receiver: socket.socket, expected: bytes) -> tuple[str, int]:
    """Source of the next datagram, which must be ``expected``."""
    data, source = receiver.recvfrom(100)
    assert data == expected
    return source[0], source[1]


def received(receiver: socket.socket, last: bytes) -> list[bytes]:
    """Everything up to and including the datagram ``last``."""
    datagrams = []
    while not datagrams or datagrams[-1] != last:
        datagrams.append(receiver.recv(100))
    return datagrams


@pytest.mark.parametrize("nat", EVERY_NAT, ids=lambda nat: nat.short)
def test_mapping_stays_while_it_is_used(nat: Nat, sockets: Callable[[Topology], Sockets]) -> None:
    net = sockets(one_home(nat))
    inside, server = net.open("inside", INSIDE_PORT), net.open("server", 5001)
    ports = set()
    for number in range(5):
        inside.sendto(bytes([number]), net.address("server", 5001))
        source = seen_from(server, bytes([number]))
        server.sendto(b"reply", source)
        assert seen_from(inside, b"reply") == net.address("server", 5001)
        ports.add(source[1])
    assert len(ports) == 1


@pytest.mark.parametrize("nat", KEEPS_PORT, ids=lambda nat: nat.short)
def test_an_early_unsolicited_packet_does_not_change_the_mapping(
    nat: Nat, sockets: Callable[[Topology], Sockets]
) -> None:
    """The other side's first check often comes before ours: our port must be what it would have been."""
    net = sockets(one_home(nat))
    router = str(net.network.node("home").ipv4)
    inside, server = net.open("inside", INSIDE_PORT), net.open("server", 5001)
    for _ in range(3):
        server.sendto(b"too early", (router, INSIDE_PORT))
    inside.sendto(b"check", net.address("server", 5001))
    assert seen_from(server, b"check") == (router, INSIDE_PORT)
    server.sendto(b"reply", (router, INSIDE_PORT))
    assert received(inside, last=b"reply") == [b"reply"]


@pytest.mark.parametrize("nat", KEEPS_PORT, ids=lambda nat: nat.short)
def test_an_unsolicited_packet_after_the_mapping_leaves_it_alone(
    nat: Nat, sockets: Callable[[Topology], Sockets]
) -> None:
    """The mapping exists (STUN has made it); a stranger's packet is filtered; then we answer the stranger."""
    net = sockets(one_home(nat))
    inside, server = net.open("inside", INSIDE_PORT), net.open("server", 5001)
    stranger = net.open("stranger", 6001)
    inside.sendto(b"stun", net.address("server", 5001))
    mapped = seen_from(server, b"stun")
    stranger.sendto(b"their check", mapped)
    inside.sendto(b"our check", net.address("stranger", 6001))
    assert seen_from(stranger, b"our check") == mapped
    stranger.sendto(b"answer", mapped)
    assert received(inside, last=b"answer")[-1] == b"answer"


@pytest.mark.parametrize("nat", [OPEN_FILTERING, ADDRESS_RESTRICTED], ids=lambda nat: nat.short)
def test_two_hosts_behind_one_router_have_mappings_of_their_own(
    nat: Nat, sockets: Callable[[Topology], Sockets]
) -> None:
    net = sockets(one_home(nat))
    router = str(net.network.node("home").ipv4)
    server, other_port = net.open("server", 5001), net.open("server", 5002)
    hosts = {"inside": net.open("inside", INSIDE_PORT), "beside": net.open("beside", INSIDE_PORT + 1)}
    for name, host in hosts.items():
        host.sendto(name.encode(), net.address("server", 5001))
        seen_from(server, name.encode())
    other_port.sendto(b"for inside", (router, INSIDE_PORT))
    other_port.sendto(b"for beside", (router, INSIDE_PORT + 1))
    assert received(hosts["inside"], last=b"for inside") == [b"for inside"]
    assert received(hosts["beside"], last=b"for beside") == [b"for beside"]


@pytest.mark.parametrize("nat", EVERY_NAT, ids=lambda nat: nat.short)
def test_a_port_never_used_from_inside_is_closed(nat: Nat, sockets: Callable[[Topology], Sockets]) -> None:
    net = sockets(one_home(nat))
    router = str(net.network.node("home").ipv4)
    inside, unused = net.open("inside", INSIDE_PORT), net.open("inside", INSIDE_PORT + 7)
    server = net.open("server", 5001)
    inside.sendto(b"open", net.address("server", 5001))
    mapped = seen_from(server, b"open")
    server.sendto(b"knock", (router, INSIDE_PORT + 7))
    server.sendto(b"reply", mapped)
    assert received(inside, last=b"reply") == [b"reply"]
    unused.setblocking(False)
    with pytest.raises(BlockingIOError):
        unused.recv(100)


def wait_until_forgotten(router: Machine, connection: str) -> None:
    """Return when the router's connection tracking has no such entry any more."""
    deadline = time.monotonic() + 10
    while True:
        table = router.run(["cat", "/proc/self/net/nf_conntrack"], check=False)
        if table.returncode != 0:
            pytest.skip("this kernel does not show its connection tracking table")
        if connection not in table.stdout:
            return
        assert time.monotonic() < deadline, table.stdout
        time.sleep(0.05)


def test_a_mapping_expires_when_it_is_idle(sockets: Callable[[Topology], Sockets]) -> None:
    """RFC 4787 section 4.3, with a router that is quicker than REC-5 allows."""
    net = sockets(one_home(Nat(expiry_s=1)))
    inside, server = net.open("inside", INSIDE_PORT), net.open("server", 5001)
    inside.sendto(b"open", net.address("server", 5001))
    mapped = seen_from(server, b"open")
    wait_until_forgotten(net.network.node("home"), f"sport={INSIDE_PORT} dport=5001")
    server.sendto(b"too late", mapped)
    inside.sendto(b"again", net.address("server", 5001))
    server.sendto(b"reply", seen_from(server, b"again"))
    assert received(inside, last=b"reply") == [b"reply"]


@pytest.mark.parametrize("nat", [PORT_RESTRICTED, OPEN_FILTERING], ids=lambda nat: nat.short)
def test_ipv6_is_routed_and_filtered_but_not_translated(
    nat: Nat, sockets: Callable[[Topology], Sockets]
) -> None:
    """RFC 6092: what comes from outside without having been asked for stays outside."""
    net = sockets(one_home(nat, ipv6=True))
    own = net.address6("inside", INSIDE_PORT)
    inside = net.open("inside", INSIDE_PORT, socket.AF_INET6)
    server, other = net.open("server", 5001, socket.AF_INET6), net.open("server", 5002, socket.AF_INET6)
    other.sendto(b"unasked", own)
    inside.sendto(b"hello", net.address6("server", 5001))
    assert seen_from(server, b"hello") == own
    server.sendto(b"reply", own)
    expected = [b"reply"] if nat is PORT_RESTRICTED else [b"unasked", b"reply"]
    assert received(inside, last=b"reply") == expected


def test_a_carrier_nat_in_front_of_a_home_nat(sockets: Callable[[Topology], Sockets]) -> None:
    """Two translations in a row keep both behaviours."""
    net = sockets(
        Topology(
            "cgnat",
            "for this test",
            hosts=(
                Host("server", Role.PLAIN),
                Host("stranger", Role.PLAIN),
                Host("inside", Role.PLAIN, behind="home"),
            ),
            routers=(Router("carrier", OPEN_FILTERING), Router("home", OPEN_FILTERING, behind="carrier")),
        )
    )
    inside, server = net.open("inside", INSIDE_PORT), net.open("server", 5001)
    stranger = net.open("stranger", 5001)
    inside.sendto(b"open", net.address("server", 5001))
    mapped = seen_from(server, b"open")
    assert mapped == net.address("carrier", INSIDE_PORT)
    stranger.sendto(b"other address", mapped)
    assert seen_from(inside, b"other address") == net.address("stranger", 5001)
