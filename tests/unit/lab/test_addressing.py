"""Every topology gets addresses that are unique and belong where they should."""

from ipaddress import IPv4Address, IPv4Network, IPv6Interface, IPv6Network

import pytest

from dhtvpn.lab import topologies
from dhtvpn.lab.addressing import PUBLIC_IPV4, PUBLIC_IPV6, plan
from dhtvpn.lab.topology import MAX_SITES, PUBLIC_SEGMENT, Host, Role, Router, Topology


def test_the_demo_to_the_letter() -> None:
    demo = plan(topologies.DEMO)
    rows = [
        (link.machine, link.interface, link.upstream, str(link.ipv4), str(link.ipv4_gateway))
        for link in demo.links
    ]
    assert rows == [
        ("home", "wan", "internet", "198.18.1.2/24", "198.18.1.1"),
        ("carrier", "wan", "internet", "198.18.2.2/24", "198.18.2.1"),
        ("boot", "eth0", "internet", "198.18.3.2/24", "198.18.3.1"),
        ("server", "eth0", "internet", "198.18.4.2/24", "198.18.4.1"),
        ("laptop", "eth0", "home", "192.168.1.10/24", "192.168.1.1"),
        ("phone", "eth0", "carrier", "192.168.2.10/24", "192.168.2.1"),
    ]
    assert [str(lan.ipv4) for lan in demo.lans] == ["192.168.1.1/24", "192.168.2.1/24"]
    assert all(link.ipv6 is None and link.upstream_ipv6 is None for link in demo.links)


def test_ipv6_is_there_only_where_the_topology_says_so() -> None:
    six = plan(topologies.IPV6_ONLY)
    only = six.link("six")
    assert only.ipv4 is None
    assert only.upstream_ipv4 is None
    assert only.ipv6 == IPv6Interface("2001:db8:4::2/64")
    home, laptop = six.link("home"), six.link("laptop")
    assert home.delegated == IPv6Network("2001:db8:1::/48")
    assert laptop.ipv6 == IPv6Interface("2001:db8:1:1::a/64")
    assert laptop.ipv6.ip in home.delegated
    assert six.link("server").delegated is None


def test_a_router_behind_a_router_lives_on_its_lan() -> None:
    built = plan(
        Topology(
            "t",
            "",
            (Host("h", behind="home"),),
            (Router("carrier", lan=IPv4Network("100.64.7.0/24")), Router("home", behind="carrier")),
        )
    )
    assert str(built.link("home").ipv4) == "100.64.7.10/24"
    assert built.link("home").ipv4_gateway == IPv4Address("100.64.7.1")
    assert str(built.link("h").ipv4) == "192.168.2.10/24"


@pytest.mark.parametrize("name", topologies.TOPOLOGIES)
def test_addresses_are_unique_and_public_ones_documentation_or_benchmark(name: str) -> None:
    built = plan(topologies.TOPOLOGIES[name])
    addresses = [link.ipv4 for link in built.links if link.ipv4] + [lan.ipv4 for lan in built.lans]
    assert len(set(addresses)) == len(addresses)
    for link in built.links:
        assert len(link.interface) <= 15
        assert len(link.upstream_port) <= 15
        if link.upstream == PUBLIC_SEGMENT:
            assert link.ipv4 is None or link.ipv4.ip in PUBLIC_IPV4
            assert link.ipv6 is None or link.ipv6.ip in PUBLIC_IPV6


def test_the_largest_topology_stays_inside_the_benchmark_range() -> None:
    hosts = tuple(Host(f"h{number}", Role.PLAIN, ipv6=True) for number in range(MAX_SITES))
    built = plan(Topology("t", "", hosts))
    addresses = {link.ipv4.ip for link in built.links if link.ipv4}
    assert len(addresses) == MAX_SITES
    assert all(address in PUBLIC_IPV4 for address in addresses)
    assert len({link.upstream_port for link in built.links}) == MAX_SITES


def test_no_link_for_a_stranger() -> None:
    with pytest.raises(KeyError):
        plan(topologies.PAIR).link("nobody")
