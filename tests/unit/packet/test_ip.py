"""IP headers: what is read, and what is refused."""

import struct

import pytest
from engines_in_memory import ipv4, ipv6

from dhtvpn.errors import DecodeError
from dhtvpn.packet.ip import addresses, parse

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"


def test_ipv4_addresses_and_length_without_padding() -> None:
    packet = ipv4(A4, B4, b"x" * 5)
    assert addresses(packet + bytes(11)) == (25, bytes([10, 1, 0, 1]), bytes([10, 1, 0, 2]))


def test_ipv6_addresses_and_length_without_padding() -> None:
    length, source, destination = addresses(ipv6(A6, B6, b"x" * 5) + bytes(3))
    assert (length, source[-1], destination[-1], len(source)) == (45, 1, 2, 16)


def test_buffers_of_every_kind_give_bytes() -> None:
    packet = ipv4(A4, B4)
    assert addresses(bytearray(packet)) == addresses(memoryview(packet)) == addresses(packet)
    assert type(addresses(memoryview(packet))[1]) is bytes


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "empty"),
        (b"\x45" + bytes(18), "truncated"),
        (b"\x60" + bytes(38), "truncated"),
        (ipv4(A4, B4)[:-1], "truncated"),
        (ipv6(A6, B6)[:-1], "truncated"),
        (b"\x44" + ipv4(A4, B4)[1:], "header"),
        (b"\x4f" + ipv4(A4, B4)[1:], "header"),
        (b"\x45\0\0\x13" + ipv4(A4, B4)[4:], "header"),
        (b"\0" * 40, "version"),
        (b"\xff" * 40, "version"),
    ],
)
def test_what_is_no_packet_is_refused(packet: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        addresses(packet)
    assert caught.value.reason == reason


def test_ipv4_header_in_full() -> None:
    header = parse(ipv4(A4, B4, b"12345678", protocol=6, flags=0x4000))
    assert (header.protocol, header.payload_offset, header.dont_fragment, header.fragment_offset) == (
        6,
        20,
        True,
        0,
    )
    later = parse(ipv4(A4, B4, b"12345678", flags=0x2000 | 185))
    assert (later.dont_fragment, later.fragment_offset) == (False, 1480)


def test_ipv6_upper_layer_behind_extension_headers() -> None:
    hop_by_hop = bytes([60, 1]) + bytes(14)
    destination_options = bytes([44, 0]) + bytes(6)
    first_fragment = bytes([58, 0]) + struct.pack("!HI", 1, 7)
    header = parse(ipv6(A6, B6, hop_by_hop + destination_options + first_fragment + b"\x80", next_header=0))
    assert (header.protocol, header.payload_offset, header.fragment_offset) == (58, 72, 0)


def test_ipv6_later_fragment_is_told() -> None:
    fragment = bytes([58, 0]) + struct.pack("!HI", 1480, 7)
    assert parse(ipv6(A6, B6, fragment + b"\x01" * 8, next_header=44)).fragment_offset == 1480


def test_ipv6_authentication_header_counts_in_words_of_four() -> None:
    authentication = bytes([17, 4]) + bytes(22)
    assert parse(ipv6(A6, B6, authentication, next_header=51)).payload_offset == 64


@pytest.mark.parametrize(
    "body", [bytes([0]) * 7, bytes([0, 9]) + bytes(6), bytes(8) * 9], ids=["cut", "past the end", "endless"]
)
def test_broken_extension_chains_are_refused(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        parse(ipv6(A6, B6, body, next_header=0))
    assert caught.value.reason == "extension"
