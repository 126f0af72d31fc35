"""Where the transport header is, and the sums, against the plain ones of ``packet.checksum``."""

import random

import pytest
from engines_in_memory import ipv4, ipv6
from super_packets import begun, pseudo_of, tcp, udp

from dhtvpn.packet import transport
from dhtvpn.packet.checksum import internet_checksum
from dhtvpn.packet.transport import Layout, layout, ones_complement_sum, stated_length

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"
NOP4 = b"\x01\x01\x01\x01"


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (tcp(A4, B4, b"x"), Layout(4, 6, 20, 40)),
        (tcp(A4, B4, b"x", options=NOP4 * 3, ip_options=NOP4), Layout(4, 6, 24, 56)),
        (udp(A4, B4, b"x", ip_options=NOP4 * 10), Layout(4, 17, 60, 68)),
        (tcp(A6, B6, options=NOP4 * 10), Layout(6, 6, 40, 100)),
        (udp(A6, B6), Layout(6, 17, 40, 48)),
    ],
)
def test_the_layout_is_found_and_marks_do_not_matter(packet: bytes, expected: Layout) -> None:
    for mark in (0, 0x80, 0x90):
        marked = bytes([packet[0] | mark]) + packet[1:]
        assert layout(b"12" + marked + b"behind", 2, len(packet)) == expected
        assert stated_length(b"12" + marked, 2) == len(packet)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        ipv4(A4, B4, b"x" * 40, protocol=1),
        ipv6(A6, B6, b"x" * 40, next_header=0),
        tcp(A4, B4, b"x", fragment=0x2000),
        tcp(A4, B4, b"x", fragment=1),
        tcp(A4, B4)[:39],
        tcp(A6, B6)[:59],
        tcp(A4, B4, options=NOP4)[:43],
        udp(A4, B4)[:27],
        b"\x44" + tcp(A4, B4)[1:],
        tcp(A4, B4)[:32] + b"\x40" + tcp(A4, B4)[33:],  # a TCP header of 16 bytes
        ipv6(A6, B6)[:30],
    ],
)
def test_anything_else_has_no_layout(packet: bytes) -> None:
    assert layout(packet, 0, len(packet)) is None


def test_sums_are_those_of_rfc_1071() -> None:
    randomness = random.Random(1071)
    for size in [*range(70), 127, 128, 129, 130, 255, 256, 300, 1400, 1401, 9000, 65535]:
        for data in (randomness.randbytes(size), bytes(size), b"\xff" * size):
            assert ones_complement_sum(data) == (internet_checksum(data) ^ 0xFFFF) % 0xFFFF, size


def test_the_masks_for_sums_are_bounded() -> None:
    for size in range(0, 65536, 61):
        ones_complement_sum(bytes(size))
    assert sum(mask.bit_length() // 8 for mask in transport._MASKS.values()) < 9_000_000
    assert all(length % 512 == 0 for length in transport._MASKS)


@pytest.mark.parametrize(
    "packet",
    [
        tcp(A4, B4, b"hello", ip_options=NOP4),
        udp(A6, B6, b"hello"),
        udp(A4, B4, b"\xff\xff"),
        tcp("0.0.0.0", "0.0.0.0", flags=0, sequence=0, acknowledgement=0, window=0, ports=(0, 0)),
    ],
)
def test_a_checksum_is_begun_and_completed(packet: bytes) -> None:
    shape = layout(packet, 0, len(packet))
    assert shape is not None
    buffer = bytearray(b"\x99" * 3 + packet)
    transport.begin_checksum(buffer, 3, shape, len(packet))
    assert buffer[3:] == begun(packet)
    field = 3 + shape.ip_length + transport.CHECKSUM_OFFSET[shape.protocol]
    transport.complete_checksum(buffer, 3 + shape.ip_length, len(buffer), field)
    assert buffer[3:] == packet
    assert internet_checksum(pseudo_of(packet) + bytes(buffer[3 + shape.ip_length :])) == 0


def test_a_checksum_is_never_zero() -> None:
    body = udp(A4, B4, bytes(2), ports=(0, 0))
    for first in range(0, 65536, 257):
        for packet in (begun(body[:28] + first.to_bytes(2, "big")),):
            buffer = bytearray(packet)
            transport.complete_checksum(buffer, 20, len(buffer), 26)
            assert buffer[26:28] != b"\0\0"
