"""STUN on the wire: RFC 5769's sample messages, and the Binding request and response that we write."""

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.demux import Kind, classify
from dhtvpn.nat.reuseport import PROGRAM
from dhtvpn.nat.stun_messages import (
    binding_request,
    binding_response,
    is_authentic,
    mapped_endpoint,
    parse,
)

PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"

REQUEST_2_1 = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE_2_2 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_2_3 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
ID = bytes.fromhex("000102030405060708090a0b")


def test_rfc_5769_2_1_request() -> None:
    assert classify(REQUEST_2_1) is Kind.STUN
    message = parse(REQUEST_2_1)
    assert message.attributes["USERNAME"] == "evtj:h6vY"
    assert message.attributes["PRIORITY"] == 0x6E0001FF
    assert is_authentic(message, PASSWORD)
    assert not is_authentic(message, PASSWORD[:-1] + "u")


@pytest.mark.parametrize(
    ("data", "mapped"),
    [
        (RESPONSE_2_2, Endpoint("192.0.2.1", 32853)),
        (RESPONSE_2_3, Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
    ids=["2.2 IPv4", "2.3 IPv6"],
)
def test_rfc_5769_responses(data: bytes, mapped: Endpoint) -> None:
    message = parse(data)
    assert mapped_endpoint(message) == mapped
    assert is_authentic(message, PASSWORD)


def test_our_binding_request() -> None:
    assert binding_request(ID).hex() == "000100002112a442000102030405060708090a0b"


def test_our_binding_response_ipv4() -> None:
    assert binding_response(ID, Endpoint("192.0.2.1", 32853)).hex() == (
        "0101000c2112a442000102030405060708090a0b002000080001a147e112a643"
    )


def test_our_binding_response_ipv6() -> None:
    # 2001:db8::1 xor (cookie, then transaction id).
    assert binding_response(ID, Endpoint("2001:db8::1", 32853)).hex() == (
        "010100182112a442000102030405060708090a0b002000140002a1470113a9fa000102030405060708090a0a"
    )


def test_the_reuseport_filter() -> None:
    words = [PROGRAM[offset : offset + 8] for offset in range(0, 48, 8)]
    fields = [(int.from_bytes(w[:2], "little"), w[2], w[3], int.from_bytes(w[4:], "little")) for w in words]
    assert fields == [
        (0x30, 0, 0, 0),
        (0x15, 3, 0, 0xD9),
        (0x54, 0, 0, 0xFC),
        (0x15, 1, 0, 4),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 1),
    ]
