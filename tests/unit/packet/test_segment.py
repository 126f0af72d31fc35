"""Segmentation in software: the packets are those that a wire would see."""

import pytest
from super_packets import ACK, CWR, FIN, PSH, begun, from_device, packets_of, parts, tcp, udp

from dhtvpn.packet.segment import split
from dhtvpn.packet.transport import layout

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"
PAYLOAD = bytes(range(256)) * 12


def cut(packet: bytes, segment: int) -> list[bytes]:
    shape = layout(packet, 0, len(packet))
    assert shape is not None
    return split(bytearray(b"head" + begun(packet) + b"behind"), 4, shape, len(packet), segment)


def test_tcp_over_ipv4_by_hand() -> None:
    flags = ACK | FIN | PSH | CWR
    packet = tcp(A4, B4, b"aaaabbbbcc", flags=flags, sequence=0xFFFFFFFE, identification=0xFFFF, tos=2)
    assert cut(packet, 4) == [
        tcp(A4, B4, b"aaaa", flags=ACK | CWR, sequence=0xFFFFFFFE, identification=0xFFFF, tos=2),
        tcp(A4, B4, b"bbbb", flags=ACK, sequence=2, identification=0, tos=2),
        tcp(A4, B4, b"cc", flags=ACK | FIN | PSH, sequence=6, identification=1, tos=2),
    ]


def test_udp_over_ipv6_by_hand() -> None:
    assert cut(udp(A6, B6, b"aaaabbbbc", flow=5), 4) == [
        udp(A6, B6, b"aaaa", flow=5),
        udp(A6, B6, b"bbbb", flow=5),
        udp(A6, B6, b"c", flow=5),
    ]


@pytest.mark.parametrize("segment", [1, 2, 7, 1000, 1024, 1536, 3071, 3072, 5000])
@pytest.mark.parametrize(
    "packet",
    [
        tcp(A4, B4, PAYLOAD, options=b"\x01\x01\x08\x0a12345678", flags=ACK | PSH, urgent=5),
        tcp(A6, B6, PAYLOAD, options=b"\x01" * 40, flags=ACK | FIN),
        udp(A4, B4, PAYLOAD, ip_options=b"\x01" * 8, fragment=0),
        udp(A6, B6, PAYLOAD),
    ],
)
def test_like_a_segmentation_of_its_own(packet: bytes, segment: int) -> None:
    expected = packets_of(from_device(packet, segment))
    for number, (made, wanted) in enumerate(zip(cut(packet, segment), expected, strict=True)):
        if made[0] >> 4 == 6:
            assert made == wanted
            continue
        assert int.from_bytes(made[4:6], "big") == 1 + number
        assert renumbered(made) == wanted


def renumbered(packet: bytes) -> bytes:
    """With identification 1 again."""
    sum_before = int.from_bytes(packet[10:12], "big") ^ 0xFFFF
    total = sum_before - int.from_bytes(packet[4:6], "big") + 1
    return packet[:4] + b"\0\1" + packet[6:10] + (total % 0xFFFF ^ 0xFFFF).to_bytes(2, "big") + packet[12:]


def test_a_packet_that_needs_no_cut_is_completed() -> None:
    packet = tcp(A4, B4, b"abc", flags=ACK | PSH | CWR)
    assert cut(packet, 3) == cut(packet, 1400) == [packet]
    assert parts(packet).length == 40
