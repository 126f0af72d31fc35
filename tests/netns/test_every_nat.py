"""Every NAT that the laboratory can build behaves as its words say, also after a reboot, and pairs of them
meet exactly where they should. RFC 5780's method, and none of the VPN's code."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import combinations_with_replacement, product

import pytest
from nat_prober import OTHER_PORT, SERVER_PORT, Prober, received

from dhtvpn.errors import UsageError
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.nat_behaviour import (
    CARRIER,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    Allocation,
    Filtering,
    Mapping,
    Nat,
)
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import ExpectedPath, Host, Role, Router, Topology

pytestmark = pytest.mark.netns

LabFactory = Callable[[Topology], Network]


def buildable(nat: Nat) -> bool:
    return not (nat.dependent and nat.filtering is Filtering.ENDPOINT_INDEPENDENT)


def every_nat() -> list[Nat]:
    """Mapping by filtering by allocation, hairpinning in every second."""
    nats = []
    for mapping, filtering, allocation in product(Mapping, Filtering, Allocation):
        with suppress(UsageError):
            nats.append(Nat(mapping, filtering, allocation, hairpinning=len(nats) % 2 == 1))
    return [nat for nat in nats if buildable(nat)]


def name_of(nat: Nat) -> str:
    return f"{nat.short}-{nat.allocation.value}{'-hairpin' if nat.hairpinning else ''}"


SERVERS = (Host("server", Role.PLAIN), Host("stranger", Role.PLAIN))


def one_home(nat: Nat) -> Topology:
    inside = (Host("inside", Role.PLAIN, behind="home"), Host("beside", Role.PLAIN, behind="home"))
    return Topology("one-home", "for these tests", (*SERVERS, *inside), (Router("home", nat),))


@pytest.fixture
def probe(lab: LabFactory) -> Iterator[Callable[[Topology], Prober]]:
    with ExitStack() as stack:
        yield lambda topology: Prober(lab(topology), stack)


@pytest.mark.parametrize("nat", every_nat(), ids=name_of)
def test_a_router_is_what_it_says(nat: Nat, probe: Callable[[Topology], Prober]) -> None:
    prober = probe(one_home(nat))
    assert prober.mapping() is nat.mapping
    assert prober.filtering() is nat.filtering
    assert prober.allocation() is nat.allocation
    assert prober.hairpins() is nat.hairpinning


@pytest.mark.parametrize("nat", [PORT_RESTRICTED, replace(OPEN_FILTERING, hairpinning=True)], ids=name_of)
def test_a_reboot_closes_every_mapping(nat: Nat, probe: Callable[[Topology], Prober]) -> None:
    prober = probe(one_home(nat))
    inside = prober.open_inside()
    before = prober.seen(inside, "server", SERVER_PORT)
    prober.network.reboot("home")
    prober.send("server", SERVER_PORT, b"from before", before)
    after = prober.seen(inside, "server", OTHER_PORT)
    prober.send("server", OTHER_PORT, b"reply", after)
    assert received(inside, last=b"reply") == [b"reply"]
    assert after.host == before.host


@pytest.mark.parametrize("lines", [None, Conditions(0.001)], ids=["veth", "emulated"])
def test_a_reboot_can_bring_another_address(
    lines: Conditions | None, probe: Callable[[Topology], Prober]
) -> None:
    prober = probe(replace(one_home(replace(CARRIER, hairpinning=True)), lines=lines))
    inside = prober.open_inside()
    before = prober.seen(inside, "server", SERVER_PORT)
    prober.network.reboot("home", new_address=True)
    after = prober.seen(inside, "server", SERVER_PORT)
    assert after.host == str(prober.network.node("home").ipv4) != before.host
    assert prober.filtering() is Filtering.ADDRESS_DEPENDENT
    assert prober.hairpins()


def test_a_router_behind_a_router_keeps_its_address(lab: LabFactory) -> None:
    routers = (Router("carrier", CARRIER), Router("home", behind="carrier"))
    network = lab(Topology("t", "for this test", (Host("inside", Role.PLAIN, behind="home"),), routers))
    network.reboot("home")
    with pytest.raises(UsageError, match="no public IPv4 address"):
        network.reboot("home", new_address=True)


def can_meet(prober: Prober, one: str, other: str) -> bool:
    """Play ICE by hand: both learn their mapped endpoint from a server and send checks there, several
    times. A check is answered at its source, and only an answer from where the check went to counts."""
    ends = {name: prober.open_inside(name) for name in (one, other)}
    mapped = {name: prober.seen(end, "server", SERVER_PORT) for name, end in ends.items()}
    targets = {
        one: {(mapped[other].host, mapped[other].port)},
        other: {(mapped[one].host, mapped[one].port)},
    }
    connected = set()
    for _ in range(4):
        for name, end in ends.items():
            for target in sorted(targets[name]):
                end.sendto(b"check", target)
        for name, end in [*ends.items(), *ends.items()]:
            end.settimeout(0.02)
            with suppress(TimeoutError):
                while True:
                    data, source = end.recvfrom(100)
                    if data == b"check":
                        targets[name].add((source[0], source[1]))
                        end.sendto(b"answer", source)
                    elif (source[0], source[1]) in targets[name]:
                        connected.add(name)
        if connected == set(ends):
            return True
    return False


def shown(pair: Topology) -> str:
    return "-".join(pair.nat_label(host) for host in pair.hosts[2:])


def pairs_of_homes() -> list[Topology]:
    """Every two behaviours that the kernel's NAT can have, in a home each."""
    random_ports = [
        Nat(mapping, filtering, Allocation.RANDOM) for mapping, filtering in product(Mapping, Filtering)
    ]
    homes = [nat for nat in random_ports if buildable(nat)]
    return [
        Topology(
            "pair",
            "for this test",
            (*SERVERS, Host("left", Role.PLAIN, "a"), Host("right", Role.PLAIN, "b")),
            (Router("a", one), Router("b", other)),
        )
        for one, other in combinations_with_replacement(homes, 2)
    ]


def pairs_behind_one_carrier() -> list[Topology]:
    carriers = (CARRIER, replace(CARRIER, hairpinning=False))
    homes = (PORT_RESTRICTED, Nat(Mapping.ADDRESS_DEPENDENT, allocation=Allocation.RANDOM))
    return [
        Topology(
            "carrier",
            "for this test",
            (*SERVERS, Host("left", Role.PLAIN, "a"), Host("right", Role.PLAIN, "b")),
            (Router("carrier", carrier), Router("a", home, "carrier"), Router("b", behind="carrier")),
        )
        for carrier, home in product(carriers, homes)
    ]


@pytest.mark.parametrize("pair", [*pairs_of_homes(), *pairs_behind_one_carrier()], ids=shown)
def test_pairs_meet_exactly_where_the_topology_expects_it(
    pair: Topology, probe: Callable[[Topology], Prober]
) -> None:
    expected = pair.expected_path(pair.host("left"), pair.host("right"))
    assert can_meet(probe(pair), "left", "right") == (expected is ExpectedPath.DIRECT)
