"""UDP datagrams that are alike leave as one train; all others as they are, in order."""

import pytest
from engines_in_memory import Pair
from super_packets import from_device, packets_of, udp
from super_packets import without_identification as plain

from dhtvpn.dataplane.gathering import MAX_GATHERED
from dhtvpn.packet import virtio

V4, V6 = ("10.1.0.1", "10.1.0.2"), ("fd00::1", "fd00::2")
BODY = bytes(range(100))


def written(*packets: bytes, trains: bool = True) -> list[bytes]:
    """What the other device gets when datagrams wait together here: the same in blocks as in trains."""
    pairs = [Pair.with_trains(), Pair.with_blocks()] if trains else [Pair.make(vnet=(True, True))]
    received = []
    for pair in pairs:
        pair.a.engine._outbound._quiet = False
        pair.a.send(*(from_device(packet) for packet in packets))
        pair.carry_runs()
        assert pair.a.drops() == pair.b.drops() == {}
        received.append(pair.b.take_received())
    assert received[0] == received[-1]
    return received[0]


def all_of(received: list[bytes]) -> list[bytes]:
    return [plain(packet) for each in received for packet in packets_of(each)]


@pytest.mark.parametrize("hosts", [V4, V6])
def test_equal_neighbours_become_a_train(hosts: tuple[str, str]) -> None:
    packets = [udp(*hosts, bytes([n]) + BODY, identification=n) for n in range(5)]
    (received,) = written(*packets)
    assert virtio.HEADER.unpack_from(received)[1:4] == (virtio.GSO_UDP_L4, 28 if hosts == V4 else 48, 101)
    assert all_of([received]) == [plain(packet) for packet in packets]


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(
    "odd",
    [
        {"ports": (1, 53)},
        {"tos": 1},
        {"ttl": 3},
        {"fragment": 0},
        {"ip_options": b"\x01" * 4},
        {"payload": b""},
        {"payload": BODY[:-1]},
        {"payload": BODY + b"x"},
    ],
)
def test_an_unlike_one_ends_the_train(odd: dict[str, object], trains: bool) -> None:
    like = [udp(*V4, bytes([n]) + BODY[1:]) for n in range(4)]
    packets = [*like[:2], udp(*V4, **{"payload": BODY, **odd}), *like[2:]]  # type: ignore[arg-type]
    received = written(*packets, trains=trains)
    assert all_of(received) == [plain(packet) for packet in packets]
    assert len(received) == (3 if trains else 5)


def test_a_lonely_datagram_is_a_packet() -> None:
    assert [virtio.HEADER.unpack_from(each)[1] for each in written(udp(*V4, BODY), udp(*V6, BODY))] == [0, 0]


def test_a_train_is_bounded() -> None:
    packets = [udp(*V4, b"%04d" % n) for n in range(MAX_GATHERED + 5)]
    received = written(*packets)
    assert all_of(received) == [plain(packet) for packet in packets]
    long = [udp(*V4, bytes([n]) * 1390) for n in range(MAX_GATHERED)]  # 88,960 bytes
    assert all_of(written(*long)) == [plain(packet) for packet in long]


def test_without_a_keypair_the_train_waits() -> None:
    pair = Pair.with_trains(keys=False)
    pair.a.engine._outbound._quiet = False
    pair.a.send(*(from_device(udp(*V4, bytes([n]) + BODY)) for n in range(5)))
    (waiting,) = pair.a.engine._peers.by_number[1].queue
    assert all_of([with_lengths(waiting.data)]) == [plain(udp(*V4, bytes([n]) + BODY)) for n in range(5)]


def with_lengths(gathered: bytes) -> bytes:
    """A gathered train has the lengths of its first datagram: as a super-packet from a device has them."""
    at = 10 + 28
    return gathered[:10] + from_device(udp(*V4, gathered[at:]), 101)[10:]
