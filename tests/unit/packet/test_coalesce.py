"""What is joined, and what never is."""

import pytest
from super_packets import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, check, packets_of, tcp, udp

from dhtvpn.packet import coalesce, virtio
from dhtvpn.packet.coalesce import Batch

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"
BODY = b"0123456789"


def device(*packets: bytes) -> list[bytes]:
    """What a device gets when ``packets`` come in one batch."""
    batch, written = Batch(), []
    for packet in packets:
        if not batch.offer(packet):
            written += [b"".join(vector) for vector in batch.take()]
            written.append(virtio.NONE + packet)
    written += [b"".join(vector) for vector in batch.take()]
    assert not batch
    for each in written:
        check(each)
    return written


def segments(count: int = 3, **changes: object) -> list[bytes]:
    return [tcp(A4, B4, BODY, sequence=1000 + 10 * n, **changes) for n in range(count)]  # type: ignore[arg-type]


def test_consecutive_segments_become_one() -> None:
    sent = segments()
    (written,) = device(*sent)
    assert virtio.HEADER.unpack_from(written) == (1, virtio.GSO_TCPV4, 40, 10, 20, 16)
    assert packets_of(written) == sent


def test_ipv6_with_options() -> None:
    options = b"\x01\x01\x08\x0a12345678"
    sent = [tcp(A6, B6, BODY, sequence=(0xFFFFFFFA + 10 * n) & 0xFFFFFFFF, options=options) for n in range(4)]
    (written,) = device(*sent)
    assert virtio.HEADER.unpack_from(written) == (1, virtio.GSO_TCPV6, 72, 10, 40, 16)
    assert packets_of(written) == sent


def test_a_shorter_segment_or_a_push_is_the_last() -> None:
    first, second, third = segments()
    short = tcp(A4, B4, BODY[:3], sequence=1020)
    pushed = tcp(A4, B4, BODY, sequence=1020, flags=ACK | PSH)
    for last, following in ((short, 1023), (pushed, 1030)):
        after = tcp(A4, B4, BODY, sequence=following)
        assert [packets_of(each) for each in device(first, second, last, after)] == [
            [first, second, last],
            [after],
        ]
    pushed_first = tcp(A4, B4, BODY, flags=ACK | PSH)
    assert [packets_of(each) for each in device(pushed_first, second, third)] == [
        [pushed_first],
        [second, third],
    ]


def test_a_longer_segment_begins_anew() -> None:
    first = tcp(A4, B4, BODY)
    longer = tcp(A4, B4, BODY * 2, sequence=1010)
    assert [packets_of(each) for each in device(first, longer)] == [[first], [longer]]


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 1011},
        {"sequence": 1000},
        {"sequence": 1009},
        {"acknowledgement": 8},
        {"window": 501},
        {"urgent": 1},
        {"options": b"\x01" * 4},
        {"ttl": 63},
        {"tos": 1},
        {"tos": 46 << 2},
        {"ip_options": b"\x01" * 4},
        {"fragment": 0},
        *({"flags": ACK | flag} for flag in (FIN, SYN, RST, URG, ECE, CWR)),
        {"flags": 0},
    ],
)
def test_an_unlike_segment_is_not_joined(changes: dict[str, int]) -> None:
    first = tcp(A4, B4, BODY)
    other = tcp(A4, B4, BODY, **{"sequence": 1010, **changes})  # type: ignore[arg-type]
    assert [packets_of(each) for each in device(first, other)] == [[first], [other]]


def test_reserved_bits_are_part_of_the_header() -> None:
    first, second, _ = segments()
    odd = bytearray(second)
    odd[32] |= 1  # accurate ECN
    odd[36:38] = ((int.from_bytes(odd[36:38], "big") - 0x100) % 0xFFFF).to_bytes(2, "big")
    batch = Batch()
    assert batch.offer(first)
    assert batch.offer(bytes(odd))
    assert len(batch.take()) == 2


@pytest.mark.parametrize("at", [1, 8, 10, 25, 36, 49])
def test_a_wrong_checksum_is_left_for_the_kernel_to_see(at: int) -> None:
    first, second, third = segments()
    bad = bytearray(second)
    bad[at] ^= 0x40
    written = device(first, bytes(bad), third)
    assert written == [virtio.NONE + first, virtio.NONE + bytes(bad), virtio.NONE + third]


def test_different_flows_are_kept_apart() -> None:
    one = [tcp(A4, B4, BODY, sequence=1000 + 10 * n) for n in range(3)]
    two = [tcp(A4, B4, BODY, sequence=1000 + 10 * n, ports=(1235, 80)) for n in range(3)]
    three = [tcp("10.1.0.3", B4, BODY, sequence=1000 + 10 * n) for n in range(3)]
    mixed = [packet for packets in zip(one, two, three, strict=True) for packet in packets]
    assert [packets_of(each) for each in device(*mixed)] == [one, two, three]


@pytest.mark.parametrize(
    "packet",
    [udp(A4, B4, BODY), tcp(A4, B4), tcp(A4, B4, BODY, fragment=0x2000), b"\x45" * 25, b"\x60" * 50],
)
def test_no_segment_is_not_kept(packet: bytes) -> None:
    assert not Batch().offer(packet)


def test_what_comes_before_an_acknowledgement_goes_before_it() -> None:
    first, second, third = segments()
    pure = tcp(A4, B4, sequence=1020)
    written = device(first, second, pure, third)
    assert [packets_of(each) for each in written] == [[first, second], [pure], [third]]


def test_flows_are_capped() -> None:
    batch = Batch()
    for port in range(coalesce.MAX_FLOWS):
        assert batch.offer(tcp(A4, B4, BODY, ports=(port, 80)))
    assert not batch.offer(tcp(A4, B4, BODY, ports=(9999, 80)))
    assert len(batch.take()) == coalesce.MAX_FLOWS


def test_segments_of_one_vector_are_capped() -> None:
    sent = [tcp(A4, B4, b"x", sequence=n) for n in range(2 * coalesce.MAX_SEGMENTS + 1)]
    batch = Batch()
    assert all(map(batch.offer, sent))
    vectors = batch.take()
    assert [len(vector) - 1 for vector in vectors] == [coalesce.MAX_SEGMENTS, coalesce.MAX_SEGMENTS, 1]
    assert [packet for vector in vectors for packet in packets_of(b"".join(vector))] == sent


def test_a_super_packet_fits_an_ip_packet() -> None:
    size = 1400
    sent = [tcp(A4, B4, bytes(size), sequence=n * size) for n in range(60)]
    first, second = device(*sent)
    assert len(first) - 10 <= 65535 < len(first) - 10 + 2 * size
    assert packets_of(first) + packets_of(second) == sent
