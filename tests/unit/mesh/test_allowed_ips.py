"""Longest-prefix match over both families."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from dhtvpn.mesh import allowed_ips
from dhtvpn.mesh.allowed_ips import AllowedIps


def table(**networks: int) -> AllowedIps:
    made = AllowedIps()
    for text, peer in networks.items():
        made.insert(ip_network(text), peer)
    return made


def at(made: AllowedIps, address: str) -> int | None:
    return made.lookup(ip_address(address).packed)


def test_the_longest_prefix_wins() -> None:
    made = table(**{"10.0.0.0/8": 1, "10.1.0.0/16": 2, "10.1.2.3/32": 3, "0.0.0.0/0": 4})
    assert [at(made, a) for a in ("10.9.9.9", "10.1.9.9", "10.1.2.3", "192.0.2.1")] == [1, 2, 3, 4]


def test_families_do_not_mix() -> None:
    made = table(**{"::/0": 6, "fd00::/64": 7, "fd00::5/128": 8})
    assert [at(made, a) for a in ("2001:db8::1", "fd00::1", "fd00::5", "10.0.0.1")] == [6, 7, 8, None]


def test_a_wrong_length_belongs_to_nobody() -> None:
    made = table(**{"0.0.0.0/0": 1, "::/0": 1})
    assert made.lookup(b"") is made.lookup(bytes(5)) is None


def test_a_network_has_one_holder() -> None:
    made = table(**{"10.0.0.0/8": 1, "10.0.0.1/32": 1})
    made.insert(ip_network("10.0.0.0/8"), 2)
    made.insert(ip_network("10.0.0.1"), 2)
    assert (at(made, "10.0.0.1"), at(made, "10.3.0.0"), len(made)) == (2, 2, 2)
    assert made.holder(ip_network("10.0.0.0/8")) == 2
    assert made.holder(ip_network("10.0.0.0/9")) is None


def test_removal_uncovers_the_shorter_prefix() -> None:
    made = table(**{"10.0.0.0/8": 1, "10.0.0.0/16": 2, "10.0.0.1/32": 3})
    made.remove(ip_network("10.0.0.1"))
    assert at(made, "10.0.0.1") == 2
    made.remove(ip_network("10.0.0.0/16"))
    made.remove(ip_network("10.0.0.0/16"))
    assert at(made, "10.0.0.1") == 1


def test_removing_a_peer_takes_all_that_is_its() -> None:
    made = table(**{"10.0.0.0/8": 1, "10.0.0.1/32": 1, "fd00::/64": 1, "fd00::/16": 2, "10.0.0.2/32": 2})
    made.remove_peer(1)
    assert [at(made, a) for a in ("10.0.0.1", "fd00::1", "10.0.0.2")] == [None, 2, 2]
    assert len(made) == 2


def test_the_table_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed_ips, "MAX_NETWORKS", 2)
    made = table(**{"10.0.0.1/32": 1, "10.0.0.0/24": 1})
    with pytest.raises(ValueError, match="more than 2"):
        made.insert(ip_network("10.0.0.2"), 1)
    made.insert(ip_network("10.0.0.1"), 2)  # a change is no growth


def test_hosts_are_exact() -> None:
    made = table(**{"10.0.0.1/32": 1, "fd00::1/128": 1})
    assert made.hosts == {IPv4Address("10.0.0.1").packed: 1, IPv6Address("fd00::1").packed: 1}
