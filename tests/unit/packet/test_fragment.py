"""Fragments: each fits and is a packet, and together they are what was cut."""

import struct
from contextlib import suppress

import pytest
from engines_in_memory import ipv4, ipv6
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.errors import DecodeError
from dhtvpn.packet import fragment
from dhtvpn.packet.checksum import internet_checksum
from dhtvpn.packet.ip import parse

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"


def joined_v4(pieces: list[bytes]) -> bytes:
    """The payload, as the receiver puts it together; every rule of the format is checked."""
    payload = bytearray()
    for number, piece in enumerate(pieces):
        header = parse(piece)
        assert header.total_length == len(piece) and internet_checksum(piece[:20]) == 0
        assert header.fragment_offset == len(payload)
        more = bool(piece[6] & 0x20)
        assert more == (number < len(pieces) - 1)
        assert not more or (len(piece) - 20) % 8 == 0
        payload += piece[20:]
    return bytes(payload)


def joined_v6(pieces: list[bytes], skip: int = 40) -> tuple[int, bytes]:
    payload, kinds = bytearray(), set()
    for number, piece in enumerate(pieces):
        header = parse(piece)
        assert header.total_length == len(piece)
        kind, field, identification = struct.unpack_from("!BxHI", piece, skip)
        kinds.add(kind)
        assert identification == 0xDEADBEEF
        assert field & 0xFFF8 == len(payload) and bool(field & 1) == (number < len(pieces) - 1)
        payload += piece[skip + 8 :]
    return kinds.pop(), bytes(payload)


@given(st.binary(min_size=1300, max_size=4000), st.integers(68, 1300))
def test_ipv4_is_joined_again(payload: bytes, mtu: int) -> None:
    packet = ipv4(A4, B4, payload, flags=0)
    pieces = fragment.split(packet + bytes(9), mtu, 0)
    assert all(len(piece) <= mtu for piece in pieces) and len(pieces) > 1
    assert joined_v4(pieces) == payload
    assert all(piece[4:6] == packet[4:6] and piece[12:20] == packet[12:20] for piece in pieces)


@given(st.binary(min_size=1300, max_size=4000), st.integers(68, 1300))
def test_ipv6_is_joined_again(payload: bytes, mtu: int) -> None:
    pieces = fragment.split(ipv6(A6, B6, payload) + bytes(9), mtu, 0xDEADBEEF)
    assert all(len(piece) <= mtu for piece in pieces) and len(pieces) > 1
    assert joined_v6(pieces) == (ipv6(A6, B6)[6], payload)


def test_a_fragment_is_cut_into_fragments_of_the_same_whole() -> None:
    payload = bytes(range(250)) * 16
    for whole, join in (
        (ipv4(A4, B4, payload, flags=0), joined_v4),
        (ipv6(A6, B6, payload), lambda pieces: joined_v6(pieces)[1]),
    ):
        pieces = fragment.split(whole, 1280, 0xDEADBEEF)
        again = [small for piece in pieces for small in fragment.split(piece, 500, 1)]
        assert all(len(piece) <= 500 for piece in again) and join(again) == payload  # type: ignore[operator]


def test_headers_that_routers_read_stay_in_front() -> None:
    hop_by_hop = bytes([60, 0]) + bytes(6)
    destination = bytes([43, 0]) + bytes(6)
    routing = bytes([60, 0]) + bytes(6)
    last = bytes([17, 0]) + bytes(6)
    payload = last + bytes(1200)
    packet = ipv6(A6, B6, hop_by_hop + destination + routing + payload, next_header=0)
    pieces = fragment.split(packet, 1000, 0xDEADBEEF)
    assert all(piece[40:56] == packet[40:56] and piece[56] == 44 for piece in pieces)
    assert joined_v6(pieces, skip=64) == (60, payload)


@pytest.mark.parametrize(
    ("packet", "mtu", "reason"),
    [
        (b"", 1000, "empty"),
        (bytes([0x46]) + ipv4(A4, B4, bytes(1400), flags=0)[1:], 1000, "options"),
        (ipv4(A4, B4, bytes(1400), flags=0), 27, "mtu"),
        (ipv6(A6, B6, bytes(1400)), 55, "mtu"),
        (ipv6(A6, B6, bytes([0, 250]) + bytes(1200), next_header=0), 1000, "extension"),
        (ipv6(A6, B6, bytes([0, 0, 0, 0, 0, 0, 0, 0]) * 150, next_header=0), 1000, "extension"),
        (ipv6(A6, B6, bytes(4), next_header=44), 1000, "extension"),
        (ipv6(A6, B6, bytes(4), next_header=0), 1000, "extension"),
    ],
)
def test_what_cannot_be_cut(packet: bytes, mtu: int, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        fragment.split(packet, mtu, 0)
    assert caught.value.reason == reason


def test_who_may_be_longer_than_the_path() -> None:
    assert fragment.may_be(ipv4(A4, B4, flags=0x4000)) == 0
    assert fragment.may_be(ipv4(A4, B4, flags=0)) == 65535
    assert fragment.may_be(ipv6(A6, B6)) == 1280


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_cut_or_refused(data: bytes, mtu: int) -> None:
    with suppress(DecodeError):
        fragment.split(data, mtu, 0)
