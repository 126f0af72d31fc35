"""The rules say what the behaviour's words say; that the kernel then does it is tests/netns' business."""

import pytest

from dhtvpn.lab.nft import router_rules
from dhtvpn.lab.topology import ADDRESS_RESTRICTED, OPEN_FILTERING, PORT_RESTRICTED, SYMMETRIC, Nat

EVERY_NAT = [OPEN_FILTERING, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC]


@pytest.mark.parametrize("nat", EVERY_NAT, ids=lambda nat: nat.short)
def test_every_router_drops_what_is_unsolicited(nat: Nat) -> None:
    rules = router_rules(nat)
    assert 'iifname "wan" drop' in rules
    assert 'iifname "wan" oifname "lan" drop' in rules
    assert rules.count("{") == rules.count("}")


def test_port_restricted_to_the_letter() -> None:
    assert router_rules(PORT_RESTRICTED) == (
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
    assert "fully-random" in router_rules(SYMMETRIC)
    for nat in (OPEN_FILTERING, ADDRESS_RESTRICTED, PORT_RESTRICTED):
        assert "random" not in router_rules(nat)


def test_looser_filtering_lets_in_what_was_remembered() -> None:
    assert "dnat" not in router_rules(PORT_RESTRICTED).replace("ct status dnat", "")
    assert "udp dport dnat" not in router_rules(SYMMETRIC)
    assert "dnat to udp dport map @open_ports" in router_rules(OPEN_FILTERING)
    assert "@spoken_to" not in router_rules(OPEN_FILTERING)
    assert "ip saddr . udp dport @spoken_to dnat" in router_rules(ADDRESS_RESTRICTED)
    assert "timeout 7s" in router_rules(Nat(filtering=OPEN_FILTERING.filtering, expiry_s=7))
