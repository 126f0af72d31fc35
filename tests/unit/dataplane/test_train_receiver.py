"""Trains that arrive: put together again, split where something is missing, malformed ones dropped."""

import struct
from collections.abc import Callable, Sequence

import pytest
from engines_in_memory import Pair
from super_packets import ACK, CWR, FIN, PSH, begun, from_device, packets_of, tcp, udp
from super_packets import without_identification as plain

from dhtvpn.dataplane.messages import Activity, Datagram, SetFeatures, SetPathMtu
from dhtvpn.endpoint import Endpoint
from dhtvpn.packet.train import PARTIAL, SEGMENT

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"
HOME = ("192.0.2.1", 4001)
PAYLOAD = bytes(range(256)) * 40
SEGMENT_SIZE = 1000
LAST = len(PAYLOAD) // SEGMENT_SIZE  # the number of the last piece, 240 bytes


def train(pair: Pair, packet: bytes | None = None, segment: int = SEGMENT_SIZE) -> list[bytes]:
    """The datagrams of one super-packet from a to b."""
    if packet is None:
        packet = tcp(A4, B4, PAYLOAD, flags=ACK | PSH | FIN | CWR)
    pair.a.send(from_device(packet, segment))
    return pair.a.take_sent()


def wire(packet: bytes | None = None, segment: int = SEGMENT_SIZE) -> list[bytes]:
    """The packets that the super-packet of :func:`train` stands for."""
    if packet is None:
        packet = tcp(A4, B4, PAYLOAD, flags=ACK | PSH | FIN | CWR)
    return [plain(each) for each in packets_of(from_device(packet, segment))]


def got(pair: Pair) -> list[list[bytes]]:
    """What b's machine got: packets by super-packet."""
    return [[plain(packet) for packet in packets_of(each)] for each in pair.b.take_received()]


def drops(pair: Pair) -> dict[str, int]:
    return {name.removeprefix("dataplane."): count for name, count in pair.b.drops().items()}


def sealed(pair: Pair, plaintext: bytes) -> bytes:
    transport = pair.a.engine._peers.by_number[1].transport
    before, transport.mtu = transport.mtu, 0  # no padding
    datagram = transport.seal(plaintext, 0.0)
    transport.mtu = before
    assert datagram is not None
    return datagram


@pytest.mark.parametrize("aes", [False, True])
@pytest.mark.parametrize(
    "packet",
    [
        tcp(A4, B4, PAYLOAD, flags=ACK | PSH | FIN | CWR, sequence=0xFFFFFF00),
        tcp(A6, B6, PAYLOAD, options=b"\x01\x01\x08\x0a12345678", window=3, urgent=4),
        tcp(A4, B4, PAYLOAD, ip_options=b"\x01" * 12, options=b"\x01" * 40, ttl=3, tos=46 << 2),
        udp(A4, B4, PAYLOAD),
        udp(A6, B6, PAYLOAD, flow=0x12345),
    ],
)
@pytest.mark.parametrize("segment", [1000, 1024, 10239, 5120, 300])
def test_a_super_packet_comes_out_as_it_went_in(packet: bytes, segment: int, aes: bool) -> None:
    pair = Pair.with_trains(aes=aes)
    pair.a.engine.handle_command(SetPathMtu(1, 12_000), 0.0)
    pair.a.send(from_device(packet, segment))
    pair.carry_runs()
    assert pair.b.take_received() == [from_device(packet, segment)]
    assert pair.b.drops() == {}


def test_the_type_is_the_one_that_the_peer_wants() -> None:
    for aes, kind in ((False, 4), (True, 5)):
        pair = Pair.with_trains(aes=aes)
        assert {datagram[0] for datagram in train(pair)} == {kind}


def test_more_pieces_than_a_run_holds() -> None:
    packet = tcp(A4, B4, PAYLOAD)
    pair = Pair.with_trains()
    pair.a.send(from_device(packet, 100))  # 103 pieces
    assert [len(run) for run, _ in pair.a.socket.sent] == [64, 39]
    pair.carry_runs()
    packets = got(pair)
    assert [len(each) for each in packets] == [64, 39]
    assert [each for super_packet in packets for each in super_packet] == wire(packet, 100)


def test_exactly_one_run() -> None:
    packet = tcp(A4, B4, PAYLOAD[:6400])
    pair = Pair.with_trains()
    pair.a.send(from_device(packet, 100))
    pair.carry_runs()
    assert pair.b.take_received() == [from_device(packet, 100)]


@pytest.mark.parametrize("missing", range(LAST + 1))
def test_a_lost_datagram_costs_its_payload_only(missing: int) -> None:
    """The kernel puts the datagrams before and after it into one run."""
    pair = Pair.with_trains()
    run = train(pair)
    del run[missing]
    pair.b.receive_run(run, source=HOME)
    expected = wire()
    received = got(pair)
    assert [packet for each in received for packet in each] == expected[:missing] + expected[missing + 1 :]
    assert len(received) <= 2
    assert drops(pair) == {}


@pytest.mark.parametrize("forged", range(LAST + 1))
def test_a_forged_datagram_costs_its_payload_only(forged: int) -> None:
    pair = Pair.with_trains()
    run = train(pair)
    run[forged] = run[forged][:-1] + bytes([run[forged][-1] ^ 1])
    pair.b.receive_run(run, source=HOME)
    expected = wire()
    assert [packet for each in got(pair) for packet in each] == expected[:forged] + expected[forged + 1 :]
    assert drops(pair) == {"data_tag": 1}


@pytest.mark.parametrize("again", range(LAST))
def test_a_repeated_datagram_is_delivered_once(again: int) -> None:
    pair = Pair.with_trains()
    run = train(pair)
    run.insert(again + 1, run[again])
    pair.b.receive_run(run, source=HOME)
    assert [packet for each in got(pair) for packet in each] == wire()
    assert drops(pair) == {"data_replay": 1}


def test_a_repeated_run_is_dropped() -> None:
    pair = Pair.with_trains()
    run = train(pair)
    for _ in range(2):
        pair.b.receive_run(run, source=HOME)
    assert got(pair) == [wire()]
    assert drops(pair) == {"data_replay": len(run)}


def test_what_came_before_is_left_out() -> None:
    pair = Pair.with_trains()
    run = train(pair)
    pair.b.receive(run[3], run[5], run[6], run[-1], source=HOME)
    alone = got(pair)
    pair.b.receive_run(run, source=HOME)
    rest = got(pair)
    expected = wire()
    assert [packet for each in alone for packet in each] == [expected[n] for n in (3, 5, 6, LAST)]
    assert [packet for each in rest for packet in each] == [
        packet for n, packet in enumerate(expected) if n not in (3, 5, 6, LAST)
    ]
    assert drops(pair) == {"data_replay": 4}


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3], [2, 3, 0, 1]])
def test_datagrams_out_of_order(order: list[int]) -> None:
    pair = Pair.with_trains()
    run = train(pair)
    pair.b.receive_run([run[n] for n in order], source=HOME)
    expected = wire()
    assert [packet for each in got(pair) for packet in each] == [expected[n] for n in order]
    assert drops(pair) == {}


@pytest.mark.parametrize("cuts", [[1], [5], [10], [1, 2, 3], [4, 9]])
def test_a_train_may_arrive_in_several_runs(cuts: list[int]) -> None:
    pair = Pair.with_trains()
    run = train(pair)
    for begin, end in zip([0, *cuts], [*cuts, len(run)], strict=True):
        pair.b.receive_run(run[begin:end], source=HOME)
    received = got(pair)
    assert [len(each) for each in received] == [
        end - begin for begin, end in zip([0, *cuts], [*cuts, LAST + 1], strict=True)
    ]
    assert [packet for each in received for packet in each] == wire()


def test_trains_side_by_side_in_one_run() -> None:
    """Payloads that are a multiple of the segment size: the kernel joins the runs of two trains."""
    pair = Pair.with_trains()
    packets = [tcp(A4, B4, PAYLOAD[:3000], sequence=n * 3000, flags=ACK | PSH) for n in range(3)]
    run = [datagram for packet in packets for datagram in train(pair, packet)]
    pair.b.receive_run(run[1:], source=HOME)
    received = got(pair)
    assert received == [wire(packets[0])[1:], wire(packets[1]), wire(packets[2])]
    assert drops(pair) == {}


def test_a_packet_a_frame_and_a_keepalive_in_the_run_of_a_train() -> None:
    pair = Pair.with_trains()
    run = train(pair)[:3]
    whole = tcp(A4, B4, b"w" * 1000)
    frame = b"\x02\x00\x08" + bytes(1037)
    run += [sealed(pair, whole), sealed(pair, frame), sealed(pair, b"")]
    pair.b.receive_run(run, source=HOME)
    assert got(pair) == [wire()[:3], [plain(whole)]]
    assert [event for event in pair.b.events if not isinstance(event, Activity)][-1].plaintext == frame  # type: ignore[union-attr]
    assert drops(pair) == {}


def test_another_session_in_the_run() -> None:
    pair, other = Pair.with_trains(), Pair.with_trains(aes=True)
    run, foreign = train(pair), train(other)
    pair.b.receive_run([*run[:4], *foreign[4:6], *run[6:]], source=HOME)
    expected = wire()
    received = [packet for each in got(pair) for packet in each]
    # type 5 of the same keys is as good; its counters are those of lost ones
    assert received == expected


@pytest.mark.parametrize(
    "head",
    [
        b"\xc5",
        b"\xe0" + bytes(50),
        b"\xc4" + tcp(A4, B4, b"x" * 30)[1:],
        b"\xc5" + tcp(A4, B4, b"")[1:],
        b"\xcf" + tcp(A4, B4, b"x")[1:],
        b"\xc5" + tcp(A4, B4, b"xxxx", fragment=0x2000)[1:],
        b"\xc5" + tcp(A4, B4, b"xxxx", fragment=3)[1:],
        b"\xc5" + tcp(A4, B4, b"x" * 9)[1:9] + b"\x01" + tcp(A4, B4, b"x" * 9)[10:],
        b"\xc5" + tcp(A4, B4, b"xxxx")[1:32] + b"\xf0" + bytes(20),
    ],
)
def test_malformed_segments_are_dropped(head: bytes) -> None:
    pair = Pair.with_trains()
    pair.b.receive(sealed(pair, head), source=HOME)
    # the same behind a good first message
    good = train(pair)
    pair.b.receive_run([good[0], sealed(pair, head)], source=HOME)
    assert got(pair) == [wire()[:1]]
    assert drops(pair) == {"bad_segment": 2}


@pytest.mark.parametrize(
    "plaintext",
    [
        b"\xd5",
        b"\xf0" + bytes(60),
        b"\xd5" + begun(tcp(A4, B4, b"x"))[1:-1],
        b"\xd5" + begun(tcp(A4, B4))[1:9] + b"\x01" + begun(tcp(A4, B4))[10:],
        b"\xd4" + begun(tcp(A4, B4))[1:],
        b"\xdf" + begun(tcp(A4, B4))[1:],
        b"\xd5\0\0\x1b" + begun(udp(A4, B4, b"x"))[4:],
        b"\xf0" + begun(tcp(A6, B6))[1:4] + b"\0\x13" + begun(tcp(A6, B6))[6:],
        b"\xf0" + begun(tcp(A6, B6))[1:6] + b"\0" + begun(tcp(A6, B6))[7:],
    ],
)
def test_malformed_partials_are_dropped(plaintext: bytes) -> None:
    pair = Pair.with_trains()
    pair.b.receive(sealed(pair, plaintext), source=HOME)
    assert got(pair) == []
    assert drops(pair) == {"bad_packet_in": 1}


def last_piece(change: Callable[[bytearray], None]) -> bytes:
    """The last piece of the train of :func:`train`, as plaintext, changed."""
    pair = Pair.with_trains()
    datagram = train(pair)[-1]
    plaintext = bytearray(pair.b.engine._peers.by_number[1].transport.open(datagram, 0.0))
    change(plaintext)
    return bytes(plaintext)


def put(at: int, value: Sequence[int]) -> Callable[[bytearray], None]:
    def change(plaintext: bytearray) -> None:
        plaintext[at : at + len(value)] = bytes(value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        put(27, [99]),  # sequence number
        put(33, [ACK | CWR]),  # flags
        put(34, [9]),  # window
        put(8, [9]),  # TTL
        put(2, struct.pack("!H", 40)),  # no payload
        put(20, [1]),  # port
    ],
)
def test_a_partial_that_is_not_the_end_of_the_train_comes_alone(change: Callable[[bytearray], None]) -> None:
    pair = Pair.with_trains()
    run = train(pair)[:-1]
    run.append(sealed(pair, last_piece(change)))  # with the counter behind the train's last: a gap
    pair.b.receive_run(run, source=HOME)
    whole = train(other := Pair.with_trains())
    other.a.engine._peers.by_number[1].transport._slots.current.counter -= 1  # type: ignore[union-attr]
    other.b.receive_run([*whole[:-1], sealed(other, last_piece(change))], source=HOME)
    for each in (pair, other):
        received = got(each)
        assert received[0] == wire()[:-1]
        assert len(received) == 2
        assert len(received[1]) == 1


def test_neither_push_nor_fin_comes_early() -> None:
    pair = Pair.with_trains()
    run = train(pair)
    for datagrams in ([run[0]], run[2:4], run[5:-1]):
        pair.b.receive_run(datagrams, source=HOME)
    flags = [packet[33] for each in got(pair) for packet in each]
    assert flags == [ACK | CWR, *[ACK] * (LAST - 3)]


def test_a_huge_place_is_a_sequence_number_like_any_other() -> None:
    pair = Pair.with_trains()
    head = bytearray(tcp(A4, B4, b"x" * 50))
    head[0] |= SEGMENT
    head[36:38] = b"\x00\x01"  # the first piece would have had counter 1: this is number 65535
    pair.b.receive(sealed(pair, bytes(head)), source=HOME)
    (written,) = pair.b.take_received()
    (packet,) = packets_of(written)
    assert int.from_bytes(packet[24:28], "big") == 1000 + 65535 * 50


@pytest.mark.parametrize("mark", [0, SEGMENT, PARTIAL])
@pytest.mark.parametrize(
    ("source", "destination", "name"),
    [
        ("10.1.0.3", B4, "source_not_allowed"),
        (B4, B4, "source_not_allowed"),
        (A4, "10.1.0.3", "not_for_us"),
        (A4, "224.0.0.1", "not_for_us"),
        ("fd00::3", B6, "source_not_allowed"),
        (A6, "ff02::1", "not_for_us"),
    ],
)
def test_allowed_ips_hold_for_every_mark(mark: int, source: str, destination: str, name: str) -> None:
    for make in (tcp, udp):
        pair = Pair.with_trains()
        packet = begun(make(source, destination, b"payload"))
        datagrams = [sealed(pair, bytes([packet[0] | mark]) + packet[1:]) for _ in range(3)]
        pair.b.receive_run(datagrams, source=HOME)
        assert pair.b.take_received() == []
        assert set(drops(pair)) == {name}


def test_without_a_virtio_header_trains_are_not_wanted() -> None:
    pair = Pair.make(vnet=(True, False))
    pair.a.engine.handle_command(SetFeatures(1, trains=True, udp_trains=True, aes=False, blocks=False), 0.0)
    run = train(pair)
    pair.b.receive_run(run, source=HOME)
    assert pair.b.take_received() == []
    assert drops(pair) == {"train_unwanted": LAST, "bad_packet_in": 1}


def test_packets_that_were_joined_go_before_the_train_behind_them() -> None:
    """b takes trains but does not know yet that a does: plain packets of a are joined."""
    pair = Pair.with_trains()
    features = SetFeatures(1, trains=False, udp_trains=False, aes=False, blocks=False)
    pair.b.engine.handle_command(features, 0.0)
    first = [tcp(A4, B4, b"x" * 1000, sequence=1000 * n) for n in range(2)]
    partial = begun(tcp(A4, B4, b"p" * 10, sequence=2000))
    run = [sealed(pair, packet) for packet in first]
    pair.b.socket.arrived.append((b"".join(run), len(run[0]), HOME))
    pair.b.receive(sealed(pair, bytes([partial[0] | PARTIAL]) + partial[1:]), source=HOME)
    assert [packet[37] for each in got(pair) for packet in each] == [packet[37] for packet in first] + [
        tcp(A4, B4, b"p" * 10, sequence=2000)[37]
    ]
    pair.b.socket.arrived.append((sealed(pair, tcp(A4, B4, b"a")), 73, HOME))
    pair.b.receive_run(train(pair), source=HOME)
    assert [len(each) for each in got(pair)] == [1, LAST + 1]


def test_the_shapes_that_are_remembered_are_bounded() -> None:
    pair = Pair.with_trains()
    for segment in range(100, 180):
        packet = udp(A4, B4, PAYLOAD[:1000])
        pair.a.send(from_device(packet, segment))
        pair.carry_runs()
        assert pair.b.take_received() == [from_device(packet, segment)]
    assert len(pair.b.engine._inbound._trains._slices) <= 16
    assert len(pair.a.engine._outbound._read._slices) <= 16


def test_a_piece_that_the_control_process_received_is_delivered() -> None:
    """Where the kernel steers nothing to the engine."""
    pair = Pair.with_trains()
    run = train(pair)
    for datagram in run:
        pair.b.engine.handle_command(Datagram(datagram, Endpoint(*HOME)), 0.0)
    assert [packet for each in got(pair) for packet in each] == wire()
    assert drops(pair) == {}


def test_plain_packets_that_the_control_process_received_do_not_wait() -> None:
    pair = Pair.make(vnet=(True, True))
    for datagram in train(pair):
        pair.b.engine.handle_command(Datagram(datagram, Endpoint(*HOME)), 0.0)
        assert len(pair.b.take_received()) == 1


def test_a_source_without_a_port_gets_no_piece_in() -> None:
    pair = Pair.with_trains()
    pair.b.receive_run(train(pair), source=("192.0.2.1", 0))
    assert got(pair) == []
    assert drops(pair) == {"source_port": LAST + 1}


def test_an_expired_session_takes_no_train() -> None:
    pair = Pair.with_trains()
    pair.b.receive_run(train(pair), source=HOME, now=180.0)
    assert drops(pair) == {"data_expired": LAST + 1}
