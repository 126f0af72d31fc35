"""The rules say what the behaviour's words say; that the kernel then does it is tests/netns' business."""

from ipaddress import IPv4Interface

import pytest

from dhtvpn.errors import UsageError
from dhtvpn.lab.nat_behaviour import (
    ADDRESS_RESTRICTED,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Allocation,
    Filtering,
    Mapping,
    Nat,
)
from dhtvpn.lab.nft import router_rules

WAN, LAN = IPv4Interface("198.18.7.2/24"), IPv4Interface("192.168.3.1/24")
EVERY_NAT = [OPEN_FILTERING, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC]


def rules_of(nat: Nat) -> str:
    return router_rules(nat, WAN, LAN)


@pytest.mark.parametrize("nat", EVERY_NAT, ids=lambda nat: nat.short)
def test_every_router_drops_what_is_unsolicited(nat: Nat) -> None:
    rules = rules_of(nat)
    assert 'iifname "wan" drop' in rules
    assert 'iifname "wan" oifname "lan" drop' in rules
    assert rules.count("{") == rules.count("}")


def test_port_restricted_to_the_letter() -> None:
    assert rules_of(PORT_RESTRICTED) == (
        "table ip nat {\n"
        "\tchain postrouting {\n"
        "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
        '\t\toifname "wan" masquerade\n'
        "\t}\n"
        "}\n"
        "table inet firewall {\n"
        "\tchain input {\n"
        "\t\ttype filter hook input priority filter; policy accept;\n"
        '\t\tiifname "wan" meta l4proto ipv6-icmp accept\n'
        '\t\tiifname "wan" icmp type echo-request accept\n'
        '\t\tiifname "wan" ct state established,related accept\n'
        '\t\tiifname "wan" drop\n'
        '\t\tiifname "lan" ip daddr 198.18.7.2 meta l4proto udp drop\n'
        "\t}\n"
        "\tchain forward {\n"
        "\t\ttype filter hook forward priority filter; policy accept;\n"
        '\t\tiifname "wan" ct state established,related accept\n'
        '\t\tiifname "wan" ct status dnat accept\n'
        '\t\tiifname "wan" meta l4proto ipv6-icmp accept\n'
        '\t\tiifname "wan" oifname "lan" drop\n'
        "\t}\n"
        "}\n"
    )


def test_only_dependent_mapping_draws_ports_at_random() -> None:
    assert "fully-random" in rules_of(SYMMETRIC)
    for nat in (OPEN_FILTERING, ADDRESS_RESTRICTED, PORT_RESTRICTED):
        assert "random" not in rules_of(nat)


def test_looser_filtering_lets_in_what_was_remembered() -> None:
    assert "dnat" not in rules_of(PORT_RESTRICTED).replace("ct status dnat", "")
    assert "udp dport dnat" not in rules_of(SYMMETRIC)
    assert "dnat ip to udp dport map @open_ports" in rules_of(OPEN_FILTERING)
    assert "@spoken_to" not in rules_of(OPEN_FILTERING)
    assert "ip saddr . udp dport @spoken_to dnat" in rules_of(ADDRESS_RESTRICTED)
    assert "timeout 7s" in rules_of(Nat(filtering=OPEN_FILTERING.filtering, expiry_s=7))


def test_only_flows_that_shall_share_a_port_without_having_the_same_are_remembered() -> None:
    assert "map ports" not in rules_of(OPEN_FILTERING)
    assert "map ports" not in rules_of(SYMMETRIC)
    by_address = rules_of(Nat(Mapping.ADDRESS_DEPENDENT, allocation=Allocation.RANDOM))
    assert "map ports { type ipv4_addr . inet_service . ipv4_addr : inet_service;" in by_address
    assert (
        "masquerade to :ct original ip saddr . ct original proto-src . ct original ip daddr map" in by_address
    )
    drawn = rules_of(Nat(allocation=Allocation.RANDOM))
    assert "map ports { type ipv4_addr . inet_service : inet_service;" in drawn
    assert "masquerade fully-random" in drawn


def test_contiguous_ports_come_from_a_counter() -> None:
    assert "masquerade to :numgen inc mod 2000 map { 0 : 30000, 1 : 30001, " in rules_of(
        Nat(allocation=Allocation.CONTIGUOUS)
    )


def test_hairpinning_translates_both_ends() -> None:
    turned = rules_of(Nat(hairpinning=True))
    assert 'iifname "lan" ip daddr 198.18.7.2 meta l4proto udp dnat ip to udp dport map @open_ports' in turned
    assert 'oifname "lan" ip saddr 192.168.3.0/24 ct status dnat snat ip to 198.18.7.2' in turned
    assert "snat" not in rules_of(PORT_RESTRICTED).replace("srcnat", "")


@pytest.mark.parametrize("mapping", [Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT])
def test_what_connection_tracking_cannot_do_is_refused(mapping: Mapping) -> None:
    with pytest.raises(UsageError, match="cannot combine"):
        rules_of(Nat(mapping, Filtering.ENDPOINT_INDEPENDENT, Allocation.RANDOM))
