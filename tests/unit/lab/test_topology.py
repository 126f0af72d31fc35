"""Topologies refuse what does not fit together, and foretell which pairs have a direct path."""

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from dhtvpn.errors import UsageError
from dhtvpn.lab import topologies
from dhtvpn.lab.nat_behaviour import (
    ADDRESS_RESTRICTED,
    CARRIER,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Nat,
)
from dhtvpn.lab.topology import MAX_SITES, ExpectedPath, Host, Role, Router, Topology

DIRECT, RELAY = ExpectedPath.DIRECT, ExpectedPath.RELAY


def topology(*hosts: Host, routers: tuple[Router, ...] = ()) -> Topology:
    return Topology("t", "for this test", hosts, routers)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (OPEN_FILTERING, OPEN_FILTERING, DIRECT),
        (OPEN_FILTERING, ADDRESS_RESTRICTED, DIRECT),
        (OPEN_FILTERING, PORT_RESTRICTED, DIRECT),
        (OPEN_FILTERING, SYMMETRIC, DIRECT),
        (ADDRESS_RESTRICTED, ADDRESS_RESTRICTED, DIRECT),
        (ADDRESS_RESTRICTED, PORT_RESTRICTED, DIRECT),
        (ADDRESS_RESTRICTED, SYMMETRIC, DIRECT),
        (PORT_RESTRICTED, PORT_RESTRICTED, DIRECT),
        (PORT_RESTRICTED, SYMMETRIC, RELAY),
        (SYMMETRIC, SYMMETRIC, RELAY),
    ],
)
def test_expected_path_between_two_nats(one: Nat, other: Nat, expected: ExpectedPath) -> None:
    pair = topologies.behind_nats("t", "", {"a": one, "b": other})
    assert pair.expected_path(pair.host("a"), pair.host("b")) is expected
    assert pair.expected_path(pair.host("b"), pair.host("a")) is expected


def test_a_public_host_is_reached_from_behind_any_nat() -> None:
    public = Host("server")
    for nat in (OPEN_FILTERING, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC):
        built = topology(public, Host("laptop", behind="home"), routers=(Router("home", nat),))
        assert built.expected_path(public, built.host("laptop")) is DIRECT


def test_one_lan_or_common_ipv6_is_direct_whatever_the_nat() -> None:
    home = Router("home", SYMMETRIC, ipv6=True)
    carrier = Router("carrier", SYMMETRIC, ipv6=True)
    built = topology(
        Host("a", behind="home"),
        Host("b", behind="home", ipv6=True),
        Host("c", behind="carrier", ipv6=True),
        routers=(home, carrier),
    )
    assert built.expected_path(built.host("a"), built.host("b")) is DIRECT
    assert built.expected_path(built.host("b"), built.host("c")) is DIRECT
    assert built.expected_path(built.host("a"), built.host("c")) is RELAY


def test_without_a_common_family_somebody_with_both_must_relay() -> None:
    four, six = Host("four"), Host("six", ipv4=False, ipv6=True)
    assert topology(four, six).expected_path(four, six) is ExpectedPath.NONE
    both = Host("both", ipv6=True)
    assert topology(four, six, both).expected_path(four, six) is RELAY


def test_a_carrier_nat_decides_too() -> None:
    routers = (Router("carrier", SYMMETRIC), Router("home", OPEN_FILTERING, behind="carrier"))
    built = topology(
        Host("inner", behind="home"),
        Host("peer", behind="other"),
        routers=(*routers, Router("other", PORT_RESTRICTED)),
    )
    assert built.nats_of(built.host("inner")) == [OPEN_FILTERING, SYMMETRIC]
    assert built.expected_path(built.host("inner"), built.host("peer")) is RELAY


def test_labels_for_a_table() -> None:
    demo = topologies.DEMO
    assert demo.nat_label(demo.host("laptop")) == "EIM/APDF"
    assert demo.nat_label(demo.host("server")) == "public"
    assert SYMMETRIC.short == "APDM/APDF"
    assert ADDRESS_RESTRICTED.short == "EIM/ADF"
    assert str(OPEN_FILTERING) == (
        "endpoint-independent mapping, endpoint-independent filtering, preserving ports"
    )
    six = topologies.IPV6_ONLY
    assert six.nat_label(six.host("six")) == "IPv6 only"
    assert six.nat_label(six.host("laptop")) == "EIM/APDF+6"


def homes_behind(carrier: Nat, *homes: Nat) -> Topology:
    routers = [Router(f"home{number}", nat, behind="carrier") for number, nat in enumerate(homes)]
    hosts = [Host(f"member{number}", behind=f"home{number}") for number in range(len(homes))]
    return topology(*hosts, Host("lodger", behind="carrier"), routers=(Router("carrier", carrier), *routers))


@pytest.mark.parametrize(
    ("carrier", "home", "expected"),
    [
        (CARRIER, PORT_RESTRICTED, DIRECT),
        (replace(CARRIER, hairpinning=False), PORT_RESTRICTED, RELAY),
        (CARRIER, SYMMETRIC, RELAY),
        (replace(SYMMETRIC, hairpinning=True), PORT_RESTRICTED, RELAY),
        (replace(SYMMETRIC, hairpinning=True), ADDRESS_RESTRICTED, RELAY),
        (replace(SYMMETRIC, hairpinning=True), OPEN_FILTERING, RELAY),
    ],
)
def test_two_homes_behind_one_carrier_need_hairpinning(
    carrier: Nat, home: Nat, expected: ExpectedPath
) -> None:
    built = homes_behind(carrier, home, PORT_RESTRICTED)
    assert built.expected_path(built.host("member0"), built.host("member1")) is expected


def test_who_is_on_the_carriers_own_lan_is_reached_from_the_homes_behind_it() -> None:
    built = homes_behind(replace(CARRIER, hairpinning=False), SYMMETRIC)
    assert built.expected_path(built.host("member0"), built.host("lodger")) is DIRECT


@pytest.mark.parametrize(
    ("hosts", "routers", "sentence"),
    [
        ((Host("a"), Host("a")), (), "two machines are called a"),
        ((Host("internet"),), (), "two machines are called internet"),
        ((Host("Bad Name"),), (), "lower case"),
        ((Host("a; reboot"),), (), "lower case"),
        ((Host("a", behind="nowhere"),), (), "no router nowhere"),
        ((Host("a", ipv4=False),), (), "neither IPv4 nor IPv6"),
        ((Host("a", behind="r", ipv6=True),), (Router("r"),), "router r has none"),
        ((), (Router("r", behind="r"),), "behind itself"),
        ((), (Router("r", behind="s"), Router("s", behind="r")), "behind itself"),
        ((), (Router("r"), Router("s", behind="r", ipv6=True)), "one router only"),
        ((), (Router("r", lan=IPv4Network("8.8.8.0/24")),), "private /24"),
        (tuple(Host(f"h{number}") for number in range(MAX_SITES + 1)), (), "at most"),
        (tuple(Host(f"h{number}", behind="r") for number in range(201)), (Router("r"),), "at most 200"),
    ],
)
def test_what_does_not_fit_is_refused(
    hosts: tuple[Host, ...], routers: tuple[Router, ...], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        topology(*hosts, routers=routers)


def test_unknown_names_say_which_there_are() -> None:
    with pytest.raises(UsageError, match="demo, pair, public"):
        topologies.named("nix")
    with pytest.raises(UsageError, match="no host nix"):
        topologies.DEMO.host("nix")


def test_named_topologies_have_members_and_a_bootstrap_node() -> None:
    for name, built in topologies.TOPOLOGIES.items():
        assert built.name == name
        assert len(built.members) >= 2
        assert built.bootstraps
        assert all(host.role is not Role.PLAIN for host in built.hosts)
        assert len(built.summary) <= 62, "dhtvpn lab list fits 80 columns"
