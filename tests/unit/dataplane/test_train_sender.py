"""Super-packets that leave: as trains, cut for peers that know none, queued until there is a keypair."""

import errno
import struct
from collections.abc import Sequence

import pytest
from engines_in_memory import INDEX_A, INDEX_B, KEY_A, KEY_B, Pair, keypair_a, keypair_b
from super_packets import ACK, CWR, FIN, PSH, begun, from_device, packets_of, tcp, udp
from super_packets import without_identification as plain

from dhtvpn.dataplane import peers
from dhtvpn.dataplane.messages import InstallKeypair, NeedHandshake, SetEndpoint, SetFeatures
from dhtvpn.endpoint import Endpoint
from dhtvpn.packet import virtio
from dhtvpn.packet.train import is_partial, is_segment
from dhtvpn.wireguard.constants import REJECT_AFTER_MESSAGES

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"
PAYLOAD = bytes(range(256)) * 40
PACKET = tcp(A4, B4, PAYLOAD, flags=ACK | PSH | FIN | CWR)


def opened(pair: Pair, datagrams: Sequence[bytes]) -> list[bytes]:
    """Plaintexts that b finds in datagrams of a."""
    transport = pair.b.engine._peers.by_number[1].transport
    return [transport.open(datagram, 0.0) for datagram in datagrams]


def test_the_pieces_are_what_the_page_says() -> None:
    """docs/protocol/trains.md."""
    pair = Pair.with_trains()
    pair.a.engine._peers.by_number[1].transport._slots.current.counter = 0x12345  # type: ignore[union-attr]
    pair.a.send(from_device(tcp(A4, B4, b"aaaabbbbcc", flags=ACK | PSH | FIN | CWR, sequence=7), 4))
    datagrams = pair.a.take_sent()
    assert [struct.unpack_from("<IIQ", each) for each in datagrams] == [
        (4, INDEX_B, 0x12345 + n) for n in range(3)
    ]
    first, second, last = opened(pair, datagrams)
    super_packet = begun(tcp(A4, B4, b"aaaabbbbcc", flags=ACK | PSH | FIN | CWR, sequence=7))
    head = bytes([super_packet[0] | 0x80]) + super_packet[1:36] + b"\x23\x45" + super_packet[38:40]
    assert (first, second) == (head + b"aaaa", head + b"bbbb")
    end = begun(tcp(A4, B4, b"cc", flags=ACK | PSH | FIN, sequence=15))
    assert last == bytes([end[0] | 0x90]) + end[1:] + bytes(2)  # padded to the length of the others


def test_a_run_has_one_length() -> None:
    pair = Pair.with_trains()
    pair.a.send(from_device(PACKET, 1000))
    (run, _), *more = pair.a.take_runs()
    assert not more
    assert [len(each) for each in run] == [1072] * 10 + [-(-280 // 16) * 16 + 32]


@pytest.mark.parametrize("trains", [False, True])
def test_peers_that_know_no_trains_get_packets(trains: bool) -> None:
    pair = Pair.make(vnet=(True, False))
    pair.a.engine.handle_command(
        SetFeatures(1, trains=trains, udp_trains=False, aes=False, blocks=False), 0.0
    )
    packet = udp(A4, B4, PAYLOAD) if trains else PACKET  # trains of UDP are a feature of their own
    pair.a.send(from_device(packet, 1000))
    pair.carry_runs()
    expected = [plain(each) for each in packets_of(from_device(packet, 1000))]
    assert [plain(each) for each in pair.b.take_received()] == expected


def test_stock_peers_in_both_directions_join_again() -> None:
    """No features at all: cut by one engine, joined by the other one."""
    pair = Pair.make(vnet=(True, True))
    packet = tcp(A6, B6, PAYLOAD, flags=ACK | PSH)
    pair.a.send(from_device(packet, 1000))
    pair.carry_runs()
    assert pair.b.take_received() == [from_device(packet, 1000)]


def test_features_go_as_they_came() -> None:
    pair = Pair.with_trains(aes=True)
    pair.a.engine.handle_command(SetFeatures(1, trains=False, udp_trains=False, aes=False, blocks=False), 0.0)
    pair.a.send(from_device(PACKET, 1000), from_device(tcp(A4, B4, b"x")))
    plaintexts = opened(pair, datagrams := pair.a.take_sent())
    assert {datagram[0] for datagram in datagrams} == {4}
    assert not any(is_segment(each) or is_partial(each) for each in plaintexts)


def test_begun_checksums_are_left_to_peers_with_trains_only() -> None:
    for trains in (True, False):
        pair = Pair.with_trains()
        pair.a.engine.handle_command(
            SetFeatures(1, trains=trains, udp_trains=False, aes=False, blocks=False), 0.0
        )
        packets = [tcp(A4, B4, b"x"), udp(A4, B4, b"y"), udp(A6, B6, b"z")]
        pair.a.send(*map(from_device, packets))
        plaintexts = opened(pair, pair.a.take_sent())
        if trains:
            assert all(map(is_partial, plaintexts))
        else:
            assert [each[: len(packet)] for each, packet in zip(plaintexts, packets, strict=True)] == packets


def test_a_checksum_elsewhere_is_completed_here() -> None:
    """In a packet in a packet the device begins the inner one."""
    pair = Pair.with_trains()
    inner = tcp("192.0.2.1", "192.0.2.2", b"inner")
    outer = udp(A4, B4, inner)
    header = virtio.HEADER.pack(virtio.NEEDS_CHECKSUM, 0, 0, 0, 28 + 20, 16)
    pair.a.send(header + outer[:28] + begun(inner))
    (plaintext,) = opened(pair, pair.a.take_sent())
    assert plaintext[: len(outer)] == outer


@pytest.mark.parametrize(
    "given",
    [
        virtio.HEADER.pack(1, 3, 28, 100, 20, 6) + begun(udp(A4, B4, PAYLOAD)),  # UFO: never asked for
        virtio.HEADER.pack(1, 1, 40, 0, 20, 16) + begun(PACKET),
        virtio.HEADER.pack(1, 1, 40, 100, 20, 16) + begun(tcp(A4, B4)),
        virtio.HEADER.pack(1, 0, 0, 0, 4000, 16) + begun(tcp(A4, B4, options=b"\x01" * 4, fragment=0x2000)),
        virtio.HEADER.pack(1, 0, 0, 0, 0, 0)[:7],
        virtio.HEADER.pack(1, 1, 40, 100, 20, 16) + b"\x45",
    ],
)
def test_what_no_device_says_is_dropped(given: bytes) -> None:
    pair = Pair.with_trains()
    pair.a.send(given)
    assert pair.a.take_sent() == []
    assert pair.a.drops() == {"dataplane.bad_packet_out": 1}


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EINVAL, errno.EMSGSIZE]
)
def test_a_kernel_that_cuts_no_runs(code: int) -> None:
    """Datagrams leave one by one, in order; only EINVAL and EMSGSIZE say nothing of the next run."""
    pair = Pair.with_trains()
    pair.a.socket.refuse = lambda run: code if len(b"".join(run)) > 1100 else None
    for _ in range(2):
        pair.a.send(from_device(PACKET, 1000))
    assert len(pair.a.socket.sent) == 22
    remembered = pair.a.engine._outbound._transmitter._segments[pair.a.socket.family]
    assert remembered is (code in (errno.EINVAL, errno.EMSGSIZE))
    pair.carry_runs()
    came = [plain(packet) for each in pair.b.take_received() for packet in packets_of(each)]
    assert came == 2 * [plain(each) for each in packets_of(from_device(PACKET, 1000))]
    assert pair.a.drops() == {}


@pytest.mark.parametrize(("code", "name"), [(errno.EAGAIN, "udp_busy"), (errno.EPERM, "udp_refused")])
def test_a_run_that_does_not_leave_is_counted_by_datagrams(code: int, name: str) -> None:
    pair = Pair.with_trains()
    pair.a.socket.refuse = lambda run: code
    pair.a.send(from_device(PACKET, 1000))
    assert pair.a.drops() == {f"dataplane.{name}": 11}
    assert not pair.a.engine._peers.by_number[1].sent


def test_no_socket_of_that_family() -> None:
    pair = Pair.with_trains()
    pair.a.engine.handle_command(SetEndpoint(1, Endpoint("2001:db8::2", 4002)), 0.0)
    pair.a.send(from_device(PACKET, 1000))
    assert pair.a.drops() == {"dataplane.no_endpoint": 11}


def test_super_packets_wait_for_a_keypair_in_order() -> None:
    pair = Pair.with_trains(keys=False)
    packets = [tcp(A4, B4, PAYLOAD, sequence=1 << n) for n in range(3)]
    small = tcp(A4, B4, b"small")
    pair.a.send(
        from_device(packets[0], 1000), from_device(small), *(from_device(p, 1000) for p in packets[1:])
    )
    assert pair.a.events.count(NeedHandshake(1)) == 1
    pair.b.engine.handle_command(keypair_b(), 0.0)
    pair.a.engine.handle_command(keypair_a(), 0.0)
    pair.carry_runs()
    came = pair.b.take_received()
    assert came[0] == from_device(packets[0], 1000)
    assert packets_of(came[1]) == [small]
    assert came[2:] == [from_device(packet, 1000) for packet in packets[1:]]


def test_the_queue_holds_so_many_bytes() -> None:
    pair = Pair.with_trains(keys=False)
    huge = [from_device(tcp(A4, B4, bytes(60_000), sequence=n), 1000) for n in range(4)]
    pair.a.send(*huge)
    peer = pair.a.engine._peers.by_number[1]
    assert [waiting.data for waiting in peer.queue] == huge[2:]
    assert peer.queued_bytes <= peers.MAX_QUEUED_BYTES
    assert pair.a.drops() == {"dataplane.queue_full": 2}


def test_a_device_without_a_virtio_header_sends_packets_to_peers_with_trains() -> None:
    pair = Pair.make(vnet=(False, True))
    pair.a.engine.handle_command(SetFeatures(1, trains=True, udp_trains=True, aes=True, blocks=False), 0.0)
    packets = [tcp(A4, B4, b"one"), udp(A6, B6, b"two")]
    pair.a.send(*packets)
    pair.carry_runs()
    assert pair.b.take_received() == [virtio.NONE + packet for packet in packets]


def test_a_used_up_keypair_asks_for_a_handshake() -> None:
    pair = Pair.with_trains()
    session = pair.a.engine._peers.by_number[1].transport._slots.current
    assert session is not None
    session.counter = REJECT_AFTER_MESSAGES - 10
    pair.a.send(from_device(PACKET, 1000))
    assert pair.a.take_sent() == []
    pair.a.send(from_device(PACKET, 1000), now=2.0)
    assert NeedHandshake(1) in pair.a.events
    again = InstallKeypair(1, INDEX_A + 1, INDEX_B + 1, KEY_A, KEY_B, True, 2.0)
    pair.a.engine.handle_command(again, 2.0)
    assert len(pair.a.take_sent()) == 11


def test_packets_keep_their_order_whatever_their_marks() -> None:
    pair = Pair.with_trains()
    pair.a.engine._outbound._quiet = False
    marks = [2, 0, 2, 2, 3, 0, 0, 1]
    packets = [udp(A4, B4, b"%d" % n, tos=mark, ports=(n, 53)) for n, mark in enumerate(marks)]
    pair.a.send(*(virtio.NONE + packet for packet in packets))
    assert [mark for _, mark in pair.a.take_runs()] == [2, 0, 2, 3, 0, 1]
    pair.a.send(*(virtio.NONE + packet for packet in packets))
    pair.carry_runs()
    assert pair.b.take_received() == [virtio.NONE + packet for packet in packets]
