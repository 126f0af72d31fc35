"""Node ids against the vectors of BEP 42, and against vectors of our own for IPv6, where BEP 42 has none."""

import ipaddress
import json
from pathlib import Path

import pytest

from dhtvpn.discovery.node_ids import EXEMPT, bound_id, crc32c, fits, is_exempt

VECTORS = json.loads((Path(__file__).parent / "node_ids.json").read_text(encoding="utf-8"))


def test_crc32c_of_rfc_3720():
    """Appendix B.4, and the check value of the polynomial's catalogue."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("vector", VECTORS["bep42"] + VECTORS["ours"], ids=lambda v: v["address"])
def test_ids_of_an_address(vector):
    node_id, address = bytes.fromhex(vector["node_id"]), vector["address"]
    assert node_id[-1] == vector["random"]
    assert fits(node_id, address)
    assert bound_id(address, lambda n: bytes(2) + node_id[2:]) == node_id
    for bit in range(21):
        other = (int.from_bytes(node_id, "big") ^ 1 << 159 - bit).to_bytes(20, "big")
        assert not fits(other, address)
    for bit in range(21, 157):
        other = (int.from_bytes(node_id, "big") ^ 1 << 159 - bit).to_bytes(20, "big")
        assert fits(other, address)


@pytest.mark.parametrize("vector", VECTORS["bep42"], ids=lambda v: v["address"])
def test_an_id_does_not_fit_the_others_addresses(vector):
    others = {v["address"] for v in VECTORS["bep42"]} - {vector["address"]}
    assert not any(fits(bytes.fromhex(vector["node_id"]), other) for other in others)


def test_of_ipv6_the_upper_half_counts():
    node_id = bound_id("2001:db8:1:2::3", bytes)
    assert fits(node_id, "2001:db8:1:2:ffff::9")
    assert not fits(node_id, "2001:db8:1:3::3")


def test_what_is_exempt():
    for network in EXEMPT:
        assert is_exempt(str(network[0])) and is_exempt(str(network[-1]))
        assert fits(bytes(20), str(network[0]))
    outside = ("9.255.255.255", "172.32.0.0", "100.63.255.255", "198.18.0.1", "203.0.113.1", "2001:db8::1")
    assert not any(is_exempt(host) for host in outside)


@pytest.mark.parametrize(("host", "prefixes"), [("198.18.7.7", 8), ("2001:db8:7::7", 8)])
def test_an_address_has_eight_places(host, prefixes):
    ids = {bound_id(host, lambda n, r=r: bytes(n - 1) + bytes([r])) for r in range(256)}
    assert len({int.from_bytes(i[:3], "big") >> 3 for i in ids}) == prefixes
    assert all(fits(i, str(ipaddress.ip_address(host))) for i in ids)
