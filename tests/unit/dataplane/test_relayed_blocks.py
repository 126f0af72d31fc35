"""Blocks through relays: as they are through a volunteer, and many messages in one through a member."""

import os
from collections.abc import Callable

import pytest
from engines_in_memory import Pair, Side
from relays_in_memory import BEYOND, ID_A, ID_B, RELAY, Row, know_relay
from super_packets import from_device, packets_of, tcp

from dhtvpn.dataplane.loss_watch import STRETCH
from dhtvpn.dataplane.messages import Forward, Send, SendTo, SetEndpoint, SetPathMtu
from dhtvpn.mesh.bucket import LEAST_BURST
from dhtvpn.mesh.frames import Blocks, Ping, encode
from dhtvpn.mesh.relay_wire import DATA_HEADER
from dhtvpn.wireguard.transport import OVERHEAD

PAYLOAD = bytes(n * n % 251 for n in range(60_000))
MTU = 1300
"""Of the path between the ends, which takes 1,420 bytes on each leg."""


def packet(sender: Side, receiver: Side, size: int = len(PAYLOAD)) -> bytes:
    return from_device(tcp(sender.address4, receiver.address4, PAYLOAD[:size]), 1200)


def by_volunteer() -> Pair:
    """Two ends that reach each other through a volunteer and have asked for blocks on that way."""
    pair = Pair.with_blocks()
    for side, own, other in ((pair.a, ID_A, ID_B), (pair.b, ID_B, ID_A)):
        know_relay(side, own, other)
        side.engine.handle_command(SetEndpoint(1, BEYOND), 0.0)
        side.engine.handle_command(SetPathMtu(1, MTU), 0.0)
        assert not side.engine._peers.by_number[1].blocks_wanted
    for side, other in ((pair.a, pair.b), (pair.b, pair.a)):
        side.engine.handle_command(Send(1, encode(Blocks(wanted=True))), 0.0)
        sent_on(side, other)
    return pair


def sent_on(sender: Side, receiver: Side, lost: Callable[[int], bool] = lambda number: False) -> list[bytes]:
    """As the volunteer does, but for the datagrams that are ``lost``. Returns all of them."""
    seen: list[bytes] = []
    runs = [run for run, _ in sender.take_runs()]
    for run in runs:
        left = [datagram for n, datagram in enumerate(run, len(seen)) if not lost(n)]
        seen += run
        if left:
            receiver.receive_run(left, source=RELAY)
    return seen


@pytest.mark.parametrize("aes", [False, True])
def test_a_block_goes_through_a_volunteer_in_one_run(aes: bool) -> None:
    pair = by_volunteer()
    if aes:
        for side in (pair.a, pair.b):
            side.engine._peers.by_number[1].transport.message_type = 5
    given = packet(pair.a, pair.b)
    pair.a.send(given)
    assert len(pair.a.socket.sent) == 1
    seen = sent_on(pair.a, pair.b)
    assert {datagram[:9] for datagram in seen} == {b"\xd9" + ID_B + (b"\x07" if aes else b"\x06")}
    assert {len(datagram) for datagram in seen[:-1]} == {DATA_HEADER + MTU + OVERHEAD}
    assert PAYLOAD[1000:1016] not in b"".join(seen)
    assert pair.b.take_received() == [given]
    assert pair.b.drops() == {}


def test_a_lost_chunk_brings_trains_back() -> None:
    pair = by_volunteer()
    given = packet(pair.a, pair.b)
    for lost in (5, -1):
        pair.a.send(given)
        sent_on(pair.a, pair.b, lambda number, lost=lost: number == lost)  # type: ignore[misc]
    sent_on(pair.b, pair.a)
    assert pair.b.take_received() == [given]
    pair.a.send(given)
    assert {datagram[8] for datagram in sent_on(pair.a, pair.b)} == {4}
    (written,) = pair.b.take_received()
    assert b"".join(part[40:] for part in packets_of(written)) == PAYLOAD


def test_chunks_for_somebody_else_spoil_only_their_block() -> None:
    pair = by_volunteer()
    given = packet(pair.a, pair.b)
    pair.a.send(given, given)
    first, second = (run for run, _ in pair.a.take_runs())
    first[7] = b"\xd9" + b"zzzzzzz" + first[7][DATA_HEADER:]
    for run in (first, second):
        pair.b.receive_run(run, source=RELAY)
    assert pair.b.take_received() == [given]
    assert pair.b.drops() == {"dataplane.relay_not_for_us": 1, "dataplane.block_incomplete": 1}


def test_a_ping_by_another_path_leaves_blocks_wanted() -> None:
    pair = by_volunteer()
    pair.a.engine.handle_command(SendTo(1, pair.b.endpoint, encode(Ping(b"12345678"))), 0.0)
    pair.a.take_sent()
    pair.a.send(packet(pair.a, pair.b))
    assert {datagram[8] for datagram in sent_on(pair.a, pair.b)} == {6}


def want_blocks(row: Row) -> None:
    """Neighbours ask each other for blocks, and so do the ends."""
    last = len(row.sides) - 1
    for a, b in [*((n, n + 1) for n in range(last)), (0, last)]:
        for own, other in ((a, b), (b, a)):
            row.sides[own].engine.handle_command(
                SetPathMtu(other + 1, MTU if (a, b) == (0, last) else 1420), 0.0
            )
            row.sides[own].engine.handle_command(Send(other + 1, encode(Blocks(wanted=True))), 0.0)
            row.carry()
    for seen in row.seen:
        seen.clear()


def wants_blocks(row: Row, own: int, other: int) -> bool:
    """Whether ``own`` sends blocks to ``other``."""
    return row.sides[own].engine._peers.by_number[other + 1].blocks_wanted


@pytest.mark.parametrize("count", [3, 4, 5])
def test_members_relay_whole_blocks(count: int) -> None:
    row = Row(count, trains=True)
    want_blocks(row)
    for one, other in (row.ends, row.ends[::-1]):
        given = packet(one, other)
        one.send(given)
        assert len(one.socket.sent) == 1
        row.carry()
        assert other.take_received() == [given]
    for seen in row.seen:
        assert {datagram[0] for datagram in seen} == {6}
        assert max(map(len, seen)) == 1420 + OVERHEAD
        assert PAYLOAD[1000:1016] not in b"".join(seen)
    assert [side.drops() for side in row.sides] == [{}] * count


def test_what_a_relay_opens_is_sealed_between_the_ends() -> None:
    row = Row(trains=True)
    want_blocks(row)
    one, other = row.ends
    one.send(packet(one, other))
    row.carry()
    opened = bytes(row.sides[1].engine._inbound._blocks.buffer)
    assert row.ids[2] in opened
    assert PAYLOAD[1000:1016] not in opened


@pytest.mark.parametrize("legs", [(False, True), (True, False), (False, False)])
def test_each_leg_has_blocks_or_not(legs: tuple[bool, bool]) -> None:
    row = Row(trains=True)
    want_blocks(row)
    for leg, wanted in enumerate(legs):
        row.sides[leg].engine._peers.by_number[leg + 2].blocks_wanted = wanted
    one, other = row.ends
    given = packet(one, other)
    one.send(given)
    row.carry()
    assert other.take_received() == [given]
    for leg, wanted in enumerate(legs):
        assert {datagram[0] for datagram in row.seen[leg + 1]} == {6 if wanted else 4}
    assert [side.drops() for side in row.sides] == [{}] * 3


def test_trains_go_as_blocks_to_a_member_that_wants_them() -> None:
    """While the other end does not."""
    row = Row(trains=True)
    want_blocks(row)
    one, other = row.ends
    one.engine._peers.by_number[3].blocks_wanted = False
    given = packet(one, other)
    one.send(given)
    row.carry()
    assert b"".join(part[40:] for got in other.take_received() for part in packets_of(got)) == PAYLOAD
    assert {datagram[0] for seen in row.seen[1:] for datagram in seen} == {6}


def test_what_does_not_fit_into_one_block_goes_in_two() -> None:
    row = Row(trains=True)
    want_blocks(row)
    one, other = row.ends
    one.engine.handle_command(SetPathMtu(2, 700), 0.0)  # 64 chunks of it are 45 kB
    given = packet(one, other)
    one.send(given)
    assert len(one.socket.sent) == 2
    row.carry()
    assert other.take_received() == [given]


def test_a_relay_asks_for_blocks_where_nothing_is_lost_and_for_none_where_chunks_are() -> None:
    row = Row(trains=True)
    one, other = row.ends
    one.engine.handle_command(SetPathMtu(3, MTU), 0.0)
    given = packet(one, other)
    for _ in range(STRETCH // 40 + 3):
        one.send(given)
        row.carry(now=2.0)
    assert wants_blocks(row, 0, 1) and wants_blocks(row, 1, 2) and wants_blocks(row, 0, 2)
    other.take_received()
    row.seen[1].clear()
    one.send(given)
    run, _ = one.socket.sent[0]
    del run[9]
    one.send(given)
    row.carry(now=2.0)
    assert {datagram[0] for datagram in row.seen[1]} == {6}
    assert other.take_received() == [given]
    assert row.sides[1].drops() == {"dataplane.block_incomplete": 1}
    assert not wants_blocks(row, 0, 1) and wants_blocks(row, 1, 2)
    row.seen[1].clear()
    one.send(given)
    row.carry(now=2.0)
    assert {datagram[0] for datagram in row.seen[1]} == {4}
    assert other.take_received() == [given]


def test_the_cap_counts_octets_of_blocks() -> None:
    row = Row(trains=True, rate=1)
    want_blocks(row)
    one, other = row.ends
    fit = LEAST_BURST // len(PAYLOAD)
    for _ in range(fit + 2):
        one.send(packet(one, other))
        row.carry()
    assert len(other.take_received()) == fit
    messages = -(-len(PAYLOAD) // (MTU + OVERHEAD - 20))
    assert row.sides[1].drops() == {"dataplane.relay_rate": 2 * messages}


def test_who_does_not_relay_drops_blocks_and_counts_messages() -> None:
    row = Row(trains=True)
    want_blocks(row)
    row.sides[1].engine.handle_command(Forward(0), 0.0)
    one, other = row.ends
    one.send(packet(one, other))
    row.carry()
    assert other.take_received() == []
    assert row.sides[1].drops()["dataplane.relay_unwilling"] > 40


def test_messages_that_the_next_leg_does_not_take_alone_do_not_go_in_a_block() -> None:
    """So that probes, which go alone, tell the truth."""
    row = Row(trains=True)
    want_blocks(row)
    row.sides[1].engine.handle_command(SetPathMtu(3, MTU + OVERHEAD), 0.0)  # a byte is the header's
    one, other = row.ends
    one.send(packet(one, other))
    row.carry()
    assert other.take_received() == []
    assert row.sides[1].drops()["dataplane.relay_too_big"] > 40
    row.sides[1].engine.handle_command(SetPathMtu(3, MTU + OVERHEAD + 1), 0.0)
    one.send(packet(one, other))
    row.carry()
    assert len(other.take_received()) == 1


def test_what_is_relayed_is_no_traffic_of_the_relay() -> None:
    """By blocks as little as by single frames: else it would protect itself from what it relays."""
    row = Row(trains=True)
    want_blocks(row)
    turns = row.sides[1].engine._outbound.turns
    one, other = row.ends
    for n in range(200):
        one.send(packet(one, other))
        row.carry(now=n * 1e-3)
    assert len(other.take_received()) == 200
    assert turns._own_until == float("-inf")
    assert -1000 < turns._own <= 0


def test_a_session_that_is_relayed_carries_no_block_for_others() -> None:
    row = Row(4, trains=True)
    want_blocks(row)
    other = row.sides[3]
    inner = row.sides[0].engine
    carrier = inner._peers.by_number[4]
    inner._transmitter.now = 0.0
    session = carrier.transport.sending(0.0)
    assert session is not None
    plaintext = b"\0\0\x40\0\x20" + os.urandom(640)
    block = inner._transmitter._sealer.seal(session, 4, plaintext, 1200)
    assert block is not None
    inner._transmitter.send_run(carrier, memoryview(block), 1200, 0)
    row.carry()
    assert other.take_received() == []
    assert other.drops() == {"dataplane.relay_nested": 10}


@pytest.mark.parametrize(
    ("plaintext", "reason"),
    [
        (b"\0\0\x01\0\x20" + bytes(500), "relay_length"),
        (b"\0\0\x40\0\x2f" + bytes(500), "relay_hops"),
        (b"\0\0\x40\0\x21" + b"nobody!" + bytes(128), "relay_no_neighbour"),
        (b"\0\0\x40\0\x20" + bytes(128), "relay_unknown"),
    ],
)
def test_a_run_that_cannot_go_on_is_counted(plaintext: bytes, reason: str) -> None:
    row = Row(trains=True)
    want_blocks(row)
    engine = row.sides[0].engine
    peer = engine._peers.by_number[2]
    session = peer.transport.sending(0.0)
    assert session is not None
    block = engine._transmitter._sealer.seal(session, 4, plaintext, 1200)
    assert block is not None
    engine._transmitter.send_run(peer, memoryview(block), 1200, 0)
    row.carry()
    assert list(row.sides[1].drops()) == [f"dataplane.{reason}"]
    assert row.sides[1].take_received() == row.sides[2].take_received() == []
