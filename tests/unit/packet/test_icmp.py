"""ICMP answers: their bytes, and when there is none."""

import struct

import pytest
from engines_in_memory import ipv4, ipv6

from dhtvpn.packet import icmp
from dhtvpn.packet.checksum import internet_checksum, ipv6_pseudo_header_sum
from dhtvpn.packet.ip import parse

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"


def check_v4(answer: bytes | None) -> tuple[int, int, int, bytes]:
    """Type, code, second half of the second word, quoted bytes; both checksums and the addresses hold."""
    assert answer is not None
    header = parse(answer)
    assert (header.total_length, header.protocol) == (len(answer), 1)
    assert (header.source, header.destination) == (bytes([10, 1, 0, 2]), bytes([10, 1, 0, 1]))
    assert internet_checksum(answer[:20]) == internet_checksum(answer[20:]) == 0
    return answer[20], answer[21], struct.unpack_from("!H", answer, 26)[0], answer[28:]


def check_v6(answer: bytes | None) -> tuple[int, int, int, bytes]:
    assert answer is not None
    header = parse(answer)
    assert (header.total_length, header.protocol) == (len(answer), 58)
    assert (header.source[-1], header.destination[-1]) == (2, 1)
    pseudo = ipv6_pseudo_header_sum(header.source, header.destination, len(answer) - 40, 58)
    assert internet_checksum(answer[40:], pseudo) == 0
    return answer[40], answer[41], struct.unpack_from("!I", answer, 44)[0], answer[48:]


def test_unreachable_v4_quotes_as_much_as_fits() -> None:
    packet = ipv4(A4, B4, bytes(1400))
    kind, code, unused, quoted = check_v4(icmp.unreachable(packet))
    assert (kind, code, unused) == (3, 1, 0)  # RFC 792
    assert packet.startswith(quoted) and len(quoted) == 548


def test_unreachable_v6_quotes_up_to_the_least_mtu() -> None:
    packet = ipv6(A6, B6, bytes(1400))
    answer = icmp.unreachable(packet)
    kind, code, unused, quoted = check_v6(answer)
    assert (kind, code, unused) == (1, 3, 0)  # RFC 4443 section 3.1
    assert packet.startswith(quoted) and answer is not None and len(answer) == 1280


def test_unreachable() -> None:
    assert check_v4(icmp.unreachable(ipv4(A4, B4) + bytes(9)))[:3] == (3, 1, 0)
    assert check_v4(icmp.unreachable(ipv4(A4, B4) + bytes(9)))[3] == ipv4(A4, B4)  # padding is not quoted
    assert check_v6(icmp.unreachable(ipv6(A6, B6)))[:3] == (1, 3, 0)


def test_too_big_names_the_mtu() -> None:
    packet = ipv4(A4, B4, bytes(1400), flags=0x4000)
    assert check_v4(icmp.too_big(packet, 1220))[:3] == (3, 4, 1220)  # RFC 1191 section 4
    assert packet.startswith(check_v4(icmp.too_big(packet, 1220))[3])
    assert check_v6(icmp.too_big(ipv6(A6, B6, bytes(1400)), 1280))[:3] == (2, 0, 1280)  # RFC 4443 section 3.2
    assert check_v6(icmp.too_big(ipv6(A6, B6, bytes(9000)), 8920))[:3] == (2, 0, 8920)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        ipv4(A4, B4, flags=0x2001),  # a fragment other than the first
        ipv4(A4, B4, bytes([3, 1]) + bytes(30), protocol=1),  # ICMP errors
        ipv4(A4, B4, bytes([11, 0]) + bytes(30), protocol=1),
        ipv4(A4, B4, b"", protocol=1),  # may be one
        ipv4(A4, "224.0.0.1"),
        ipv4(A4, "255.255.255.255"),
        ipv4(0, B4),  # the unspecified address
        ipv4("127.0.0.1", B4),
        ipv4("239.1.1.1", B4),
        ipv6(A6, "ff02::1"),
        ipv6("::", B6),
        ipv6("::1", B6),
        ipv6(A6, B6, bytes([1, 0]) + bytes(30), next_header=58),
        ipv6(A6, B6, bytes([127, 0]) + bytes(30), next_header=58),
        ipv6(A6, B6, bytes([137, 0]) + bytes(30), next_header=58),  # redirect
        ipv6(A6, B6, bytes([58, 0, 5, 200]) + bytes(12), next_header=44),
        ipv6(A6, B6, bytes([58, 0]) + bytes(6) + bytes([2, 0]) + bytes(30), next_header=60),
    ],
)
def test_no_answer(packet: bytes) -> None:
    assert icmp.unreachable(packet) is None
    assert icmp.too_big(packet, 1280) is None


def test_echo_requests_are_answered() -> None:
    assert icmp.unreachable(ipv4(A4, B4, bytes([8, 0]) + bytes(30), protocol=1)) is not None
    assert icmp.unreachable(ipv6(A6, B6, bytes([128, 0]) + bytes(30), next_header=58)) is not None
    assert icmp.unreachable(ipv4(A4, B4, flags=0x2000)) is not None  # the first fragment


def test_rate_is_limited_and_recovers() -> None:
    limit = icmp.AnswerLimit(per_s=10, burst=3)
    assert [limit.allow(5.0) for _ in range(4)] == [True, True, True, False]
    assert [limit.allow(5.125) for _ in range(2)] == [True, False]
    assert not limit.allow(1.0)  # a clock that steps back gives nothing
    assert [limit.allow(100.0) for _ in range(4)] == [True, True, True, False]
