"""The whole table of RFC 6040 figure 4, on IPv4 and IPv6 headers."""

import pytest
from super_packets import tcp

from dhtvpn.packet import ecn
from dhtvpn.packet.checksum import internet_checksum
from dhtvpn.packet.ecn import CE, ECT_0, ECT_1, NOT_ECT

FIGURE_4 = {  # inner: what leaves, by outer Not-ECT, ECT(0), ECT(1), CE; None: dropped
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}
OUTER = (NOT_ECT, ECT_0, ECT_1, CE)
TABLE = [
    (inner, outer, left) for inner, row in FIGURE_4.items() for outer, left in zip(OUTER, row, strict=True)
]


@pytest.mark.parametrize(("inner", "outer", "left"), TABLE)
@pytest.mark.parametrize("dscp", [0, 46 << 2, 63 << 2])
def test_ipv4(inner: int, outer: int, left: int | None, dscp: int) -> None:
    packet = tcp("10.1.0.1", "10.1.0.2", b"payload", tos=dscp | inner, ip_options=b"\x01" * 4)
    buffer = bytearray(b"xx" + packet)
    assert ecn.bits_of(buffer, 2) == inner
    assert ecn.leave_tunnel(buffer, 2, outer) is (left is not None)
    expected = inner if left is None else left
    assert buffer[2:] == tcp("10.1.0.1", "10.1.0.2", b"payload", tos=dscp | expected, ip_options=b"\x01" * 4)


@pytest.mark.parametrize(("inner", "outer", "left"), TABLE)
@pytest.mark.parametrize("dscp", [0, 46 << 2, 63 << 2])
def test_ipv6(inner: int, outer: int, left: int | None, dscp: int) -> None:
    packet = tcp("fd00::1", "fd00::2", b"payload", tos=dscp | inner, flow=0xABCDE)
    buffer = bytearray(b"xx" + packet)
    assert ecn.bits_of(buffer, 2) == inner
    assert ecn.leave_tunnel(buffer, 2, outer) is (left is not None)
    expected = inner if left is None else left
    assert buffer[2:] == tcp("fd00::1", "fd00::2", b"payload", tos=dscp | expected, flow=0xABCDE)


@pytest.mark.parametrize(("inner", "outer"), [(ECT_0, ECT_1), (ECT_0, CE), (ECT_1, CE)])
def test_the_ipv4_checksum_stays_right_whatever_it_was(inner: int, outer: int) -> None:
    for identification in range(0, 65536, 37):
        buffer = bytearray(tcp("10.1.0.1", "10.1.0.2", tos=inner, identification=identification))
        assert ecn.leave_tunnel(buffer, 0, outer)
        assert internet_checksum(bytes(buffer[:20])) == 0


def test_marks_of_trains_do_not_matter() -> None:
    for packet in (tcp("10.1.0.1", "10.1.0.2", tos=CE), tcp("fd00::1", "fd00::2", tos=CE)):
        for mark in (0x80, 0x90):
            assert ecn.bits_of(bytes([packet[0] | mark]) + packet[1:]) == CE
