"""Blocks: made, cut, carried, put together in whatever order the chunks come, and refused."""

import struct

import pytest
from engines_in_memory import INDEX_B, Pair
from super_packets import ACK, CWR, FIN, PSH, begun, from_device, packets_of, tcp, udp
from super_packets import without_identification as plain

from dhtvpn.dataplane import block_receiver, messages
from dhtvpn.dataplane.block_receiver import MAX_KEPT
from dhtvpn.dataplane.block_sender import CHUNK_AT
from dhtvpn.dataplane.loss_watch import HOLD_S, STRETCH
from dhtvpn.dataplane.messages import Datagram, Send, SendTo, SetEndpoint, SetFeatures, SetPathMtu
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.wireguard.constants import REJECT_AFTER_MESSAGES
from dhtvpn.wireguard.transport import HEADER, NONCE, OVERHEAD, Session

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"
HOME, AWAY = ("192.0.2.1", 4001), ("192.0.2.2", 4002)
PAYLOAD = bytes(n * n % 251 for n in range(30_000))
GIVEN = from_device(tcp(A4, B4, PAYLOAD, flags=ACK | PSH | FIN | CWR), 1300)
STRIDE = 1420 + OVERHEAD


def made(pair: Pair, packet: bytes = GIVEN) -> list[bytes]:
    """The datagrams of one block from a to b."""
    pair.a.send(packet)
    datagrams = pair.a.take_sent()
    assert {datagram[0] for datagram in datagrams} <= {6, 7}
    return datagrams


def session_of_a(pair: Pair) -> Session:
    session = pair.a.engine._peers.by_number[1].transport._slots.current
    assert session is not None
    return session


def forged(pair: Pair, plaintext: bytes) -> list[bytes]:
    """A block of a that holds whatever a hostile member likes."""
    session = session_of_a(pair)
    counter = session.reserve(1)
    assert counter is not None
    header = HEADER.pack(6, INDEX_B, counter)
    sealed = bytearray(len(plaintext) + 16)
    session.seal_into[6](NONCE.pack(counter), plaintext, header, sealed)
    chunks = [bytes(sealed[at : at + 1000]) for at in range(0, len(sealed), 1000)]
    return [header + struct.pack("<HH", n, len(chunks)) + chunk for n, chunk in enumerate(chunks)]


def said(pair: Pair) -> list[frames.Frame]:
    """What b's engine has said to a's."""
    transport = pair.a.engine._peers.by_number[1].transport
    return [frames.decode(transport.open(datagram, 0.0)) for datagram in pair.b.take_sent()]


@pytest.mark.parametrize("aes", [False, True])
@pytest.mark.parametrize(
    ("packet", "segment"),
    [
        (tcp(A4, B4, PAYLOAD, flags=ACK | PSH | FIN | CWR), 1300),
        (tcp(A6, B6, PAYLOAD, options=b"\x01" * 12), 1300),
        (tcp(A4, B4, b"abcde"), 3),
        (udp(A4, B4, PAYLOAD), 1200),
        (udp(A6, B6, PAYLOAD), 1200),
    ],
)
def test_what_goes_in_comes_out(packet: bytes, segment: int, aes: bool) -> None:
    pair = Pair.with_blocks(aes=aes)
    given = from_device(packet, segment)
    datagrams = made(pair, given)
    assert {datagram[0] for datagram in datagrams} == {7 if aes else 6}
    pair.b.receive_run(datagrams, source=HOME)
    assert pair.b.take_received() == [given]
    assert pair.b.drops() == {}


def test_chunks_are_as_long_as_the_path_takes_and_have_one_counter() -> None:
    pair = Pair.with_blocks()
    datagrams = made(pair)
    heads = [struct.unpack_from("<IIQHH", datagram) for datagram in datagrams]
    count = -(-(2 + 40 + len(PAYLOAD) + 16 + 6) // (STRIDE - CHUNK_AT))
    assert [head[:2] for head in heads] == [(6, INDEX_B)] * count
    assert len({head[2] for head in heads}) == 1
    assert [head[3:] for head in heads] == [(place, count) for place in range(count)]
    assert {len(datagram) for datagram in datagrams[:-1]} == {STRIDE}
    pair.a.engine.handle_command(SetPathMtu(1, 1380), 0.0)
    assert len(made(pair)[0]) == 1380 + OVERHEAD


def test_chunks_that_come_apart_or_in_any_order_are_put_together() -> None:
    pair = Pair.with_blocks()
    datagrams = made(pair)
    middle = len(datagrams) // 2
    pair.b.receive_run(datagrams[:middle], source=HOME)
    assert pair.b.take_received() == []
    pair.b.receive_run(datagrams[middle:], source=HOME)
    assert pair.b.take_received() == [GIVEN]
    pair.b.receive(*reversed(made(pair)), source=HOME)
    assert pair.b.take_received() == [GIVEN]
    assert pair.b.drops() == {}


def test_two_blocks_in_one_run() -> None:
    """Where the last chunk of the first is as long as the others."""
    pair = Pair.with_blocks()
    payload = bytes(2 * (STRIDE - CHUNK_AT) - 16 - 2 - 40)
    given = from_device(tcp(A4, B4, payload), 1300)
    datagrams = made(pair, given) + made(pair, given)
    assert [len(datagram) for datagram in datagrams] == [STRIDE] * 4
    pair.b.receive_run(datagrams, source=HOME)
    assert pair.b.take_received() == [given, given]


def test_a_repeated_block_is_delivered_once() -> None:
    pair = Pair.with_blocks()
    datagrams = made(pair)
    pair.b.receive_run(datagrams, source=HOME)
    pair.b.receive_run(datagrams, source=HOME)
    pair.b.receive(*datagrams, source=HOME)
    assert pair.b.take_received() == [GIVEN]
    assert pair.b.drops() == {"dataplane.data_replay": 2 * len(datagrams)}
    assert said(pair) == []  # nothing is lost


def test_a_repeated_chunk_is_no_loss() -> None:
    """The network repeats one datagram of a block that was delivered, and more blocks follow."""
    pair = Pair.with_blocks()
    datagrams = made(pair)
    pair.b.receive_run(datagrams, source=HOME)
    pair.b.receive(datagrams[3], source=HOME)
    pair.b.receive_run(made(pair), source=HOME)
    assert pair.b.take_received() == [GIVEN, GIVEN]
    assert pair.b.drops() == {"dataplane.data_replay": 1}
    assert said(pair) == []


def test_a_lost_chunk_ends_blocks_until_a_stretch_without_loss() -> None:
    pair = Pair.with_blocks()
    broken = made(pair)
    del broken[3]
    pair.b.receive(*broken, source=HOME)
    assert said(pair) == []  # it may still come
    pair.b.receive_run(made(pair), source=HOME)
    assert pair.b.drops() == {"dataplane.block_incomplete": 1}
    pair.a.receive(*(answers := pair.b.take_sent()), source=AWAY)
    assert len(answers) == 1
    pair.a.send(GIVEN)
    assert {datagram[0] for datagram in pair.a.take_sent()} == {4}
    now = HOLD_S
    for _ in range(2 * STRETCH // 24 + 1):
        pair.a.send(GIVEN, now=now)
        pair.b.receive_run(pair.a.take_sent(), source=HOME, now=now)
    (again,) = pair.b.take_sent()
    pair.a.receive(again, source=AWAY)
    assert made(pair)


def test_a_chunk_that_was_altered_costs_its_block_and_ends_blocks() -> None:
    pair = Pair.with_blocks()
    datagrams = made(pair)
    datagrams[2] = datagrams[2][:-1] + bytes([datagrams[2][-1] ^ 1])
    pair.b.receive_run(datagrams, source=HOME)
    assert pair.b.take_received() == []
    assert pair.b.drops() == {"dataplane.data_tag": 1}
    assert said(pair) == [frames.Blocks(wanted=False)]


@pytest.mark.parametrize("at", [8, 16, 18])
def test_a_head_that_was_altered_is_no_part_of_the_block(at: int) -> None:
    """Its counter, its place, its number of chunks."""
    pair = Pair.with_blocks()
    datagrams = made(pair)
    bad = bytearray(datagrams[1])
    bad[at] ^= 1
    pair.b.receive(datagrams[0], bytes(bad), *datagrams[2:], source=HOME)
    assert pair.b.take_received() == []
    pair.b.receive(datagrams[1], source=HOME)
    assert pair.b.take_received() == [GIVEN]


def test_what_strangers_make_us_keep_is_bounded() -> None:
    """Somebody on the way, who knows the index."""
    pair = Pair.with_blocks()
    chunks = block_receiver.MAX_CHUNKS
    for counter in range(1000, 1100):
        for place in range(chunks - 1):
            head = HEADER.pack(6, INDEX_B, counter) + struct.pack("<HH", place, chunks)
            pair.b.receive(head + bytes(2000), source=HOME)
    kept = pair.b.engine._inbound._blocks._kept
    assert len(kept) == MAX_KEPT
    assert all(block.octets <= block_receiver.MAX_BLOCK for block in kept.values())
    pair.b.receive_run(made(pair), source=HOME)
    assert pair.b.take_received() == [GIVEN]


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x10\x00",
        struct.pack("<H", 0) + begun(tcp(A4, B4, b"abc")),
        struct.pack("<H", 5) + begun(tcp(A4, B4)),
        struct.pack("<H", 5) + b"\x00" * 60,
        struct.pack("<H", 1) + begun(tcp(A4, B4, bytes(129))),
        struct.pack("<H", 5) + begun(tcp(A4, B4, bytes(100)))[:-40],
        struct.pack("<H", 5) + b"\xc5" + begun(tcp(A4, B4, bytes(100)))[1:],
        struct.pack("<H", 5) + b"\xd5" + begun(tcp(A4, B4, bytes(100)))[1:],
    ],
)
def test_a_member_cannot_get_nonsense_to_the_device(plaintext: bytes) -> None:
    pair = Pair.with_blocks()
    pair.b.receive(*forged(pair, plaintext), source=HOME)
    assert pair.b.take_received() == []
    assert sum(pair.b.drops().values()) == 1


def test_a_member_cannot_send_in_the_name_of_others() -> None:
    pair = Pair.with_blocks()
    for packet, reason in (
        (tcp("10.1.0.9", B4, bytes(100)), "source_not_allowed"),
        (tcp(A4, "10.1.0.9", bytes(100)), "not_for_us"),
    ):
        pair.b.receive(*forged(pair, struct.pack("<H", 20) + begun(packet)), source=HOME)
        assert pair.b.drops().pop(f"dataplane.{reason}") == 1
    assert pair.b.take_received() == []


def test_lengths_and_begun_checksum_are_the_receivers() -> None:
    """A member's own are not believed: the device computes over what is there."""
    pair = Pair.with_blocks()
    right = tcp(A4, B4, bytes(100))
    bad = bytearray(begun(right))
    bad[36:38] = b"\xff\xff"
    pair.b.receive(*forged(pair, struct.pack("<H", 40) + bytes(bad) + bytes(7)), source=HOME)
    assert pair.b.take_received() == [from_device(right, 40)]


def test_without_features_or_wish_no_blocks_are_sent_and_none_taken() -> None:
    pair = Pair.with_blocks()
    datagrams = made(pair)
    for side in (pair.a, pair.b):
        features = SetFeatures(1, trains=True, udp_trains=True, aes=False, blocks=False)
        side.engine.handle_command(features, 0.0)
    pair.b.receive_run(datagrams, source=HOME)
    assert pair.b.take_received() == []
    assert pair.b.drops() == {"dataplane.block_unwanted": len(datagrams)}
    wish = frames.encode(frames.Blocks(wanted=True))
    pair.b.engine.handle_command(Send(1, wish), 0.0)
    pair.a.receive(*pair.b.take_sent(), source=AWAY)
    pair.a.send(GIVEN)
    assert {datagram[0] for datagram in pair.a.take_sent()} == {4}


@pytest.mark.parametrize("body", [b"", b"\x02", b"\x01\x01"])
def test_a_wish_that_cannot_be_read_is_dropped(body: bytes) -> None:
    pair = Pair.with_blocks()
    frame = struct.pack("!BH", frames.KIND_BLOCKS, len(body)) + body
    pair.b.engine.handle_command(Send(1, frame), 0.0)
    pair.a.receive(*pair.b.take_sent(), source=AWAY)
    assert pair.a.drops() == {"dataplane.frame_body": 1}
    assert made(pair)
    assert not [event for event in pair.a.events if isinstance(event, messages.ControlFrame)]


def test_another_way_begins_with_trains() -> None:
    for moved in ("told", "roamed"):
        pair = Pair.with_blocks()
        if moved == "told":
            pair.a.engine.handle_command(SetEndpoint(1, Endpoint("192.0.2.77", 7)), 0.0)
        else:
            pair.b.engine.handle_command(Send(1, b""), 0.0)
            pair.a.receive(*pair.b.take_sent(), source=("192.0.2.77", 7))
        pair.a.send(GIVEN)
        assert {datagram[0] for datagram in pair.a.take_sent()} == {4}


def test_a_frame_that_goes_another_way_leaves_blocks_on_the_way_in_use() -> None:
    pair = Pair.with_blocks()
    for _ in range(3):
        pair.a.engine.handle_command(SendTo(1, Endpoint("192.0.2.77", 7), b"\x02\x00\x08tokentok"), 0.0)
        assert {datagram[0] for datagram in pair.a.take_sent()} == {4}
    assert made(pair)


def test_what_does_not_fit_into_a_run_goes_as_a_train() -> None:
    pair = Pair.with_blocks()
    pair.a.engine.handle_command(SetPathMtu(1, 600), 0.0)
    given = from_device(tcp(A4, B4, bytes(60_000)), 560)
    pair.a.send(given)
    runs = pair.a.take_runs()
    assert {datagram[0] for run, _ in runs for datagram in run} == {4}


def test_what_has_very_many_segments_goes_as_a_train() -> None:
    for count, kinds in ((120, {6}), (200, {4})):
        pair = Pair.with_blocks()
        pair.a.send(from_device(tcp(A4, B4, bytes(100 * count)), 100))
        assert {datagram[0] for datagram in pair.a.take_sent()} == kinds


def test_a_session_that_is_used_up_sends_nothing() -> None:
    pair = Pair.with_blocks()
    session_of_a(pair).counter = REJECT_AFTER_MESSAGES - 1
    assert made(pair)
    pair.a.send(GIVEN)
    assert pair.a.take_sent() == []


def test_congestion_on_the_way_is_carried_over() -> None:
    pair = Pair.with_blocks()
    given = from_device(tcp(A4, B4, PAYLOAD, tos=2), 1300)
    datagrams = made(pair, given)
    pair.b.receive_run(datagrams[:5], 3, source=HOME)
    pair.b.receive_run(datagrams[5:], 2, source=HOME)
    (written,) = pair.b.take_received()
    assert written[10 + 1] & 3 == 3
    pair.b.receive_run(made(pair, given), 2, source=HOME)
    (written,) = pair.b.take_received()
    assert written[10 + 1] & 3 == 2


def test_blocks_that_come_by_the_control_process_count_too() -> None:
    """Where the kernel does not tell the sockets apart."""
    pair = Pair.with_blocks()
    for datagram in made(pair):
        pair.b.engine.handle_command(Datagram(datagram, Endpoint(*HOME)), 0.0)
    assert pair.b.take_received() == [GIVEN]


def test_a_standing_queue_costs_the_first_segment() -> None:
    pair = Pair.with_blocks()
    pair.b.engine._inbound._delivery._signal = lambda now: True  # type: ignore[method-assign]
    pair.b.receive_run(made(pair), source=HOME)
    (written,) = pair.b.take_received()
    assert [plain(each) for each in packets_of(written)] == [plain(each) for each in packets_of(GIVEN)[1:]]
    assert pair.b.drops() == {"dataplane.standing_queue_in": 1}
