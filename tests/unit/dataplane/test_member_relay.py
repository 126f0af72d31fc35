"""Engines in a row, with sessions between neighbours and between the ends: frames go through."""

import os
from typing import Any

import pytest
from engines_in_memory import ipv4
from relays_in_memory import Row
from super_packets import from_device, packets_of, tcp

from dhtvpn.dataplane.messages import (
    ControlFrame,
    EndpointRoamed,
    HeardElsewhere,
    Send,
    SetPathMtu,
    SetRelayIds,
    SetVia,
)
from dhtvpn.mesh.relay_wire import FRAME_HEADER, HANDSHAKE_MARK, arrived_handshake, frame_header
from dhtvpn.mesh.relayed import relayed

SECRET = b"nobody on the way may read this"


@pytest.mark.parametrize("count", [3, 4, 5])
def test_packets_go_through_members_both_ways(count: int) -> None:
    row = Row(count)
    a, b = row.ends
    there, back = ipv4(a.address4, b.address4, SECRET), ipv4(b.address4, a.address4, SECRET)
    a.send(there, there, there)
    row.carry()
    assert b.take_received() == [there] * 3
    b.send(back)
    row.carry()
    assert a.take_received() == [back]
    assert [side.drops() for side in row.sides] == [{}] * count
    assert all(side.take_received() == [] for side in row.sides[1:-1])
    assert not row.events(0, EndpointRoamed) and not row.events(0, HeardElsewhere)


def test_a_frame_is_heard_at_the_member_that_brought_it() -> None:
    """Though packets go on by the way in use, whichever member brings the answers."""
    row = Row()
    a, b = row.ends
    b.engine.handle_command(SetVia(7, None, 99), 0.0)  # sends through another member by now
    b.engine.handle_command(SetVia(9, None, 2), 0.0)
    a.engine.handle_command(Send(3, b"\x01a frame"), 0.0)
    row.carry()
    (frame,) = row.events(2, ControlFrame)
    assert frame.peer == 1 and frame.source == relayed(9, 1)
    assert not row.events(2, HeardElsewhere) and not row.events(2, EndpointRoamed)


def test_who_is_beyond_a_way_stays_there_when_its_members_are_called_otherwise() -> None:
    """As in every new epoch."""
    row = Row(4)
    a, b = row.ends
    for side in row.sides:
        for number in side.engine._peers.by_number:
            names = (bytes([number + 64]) * 7, row.ids[number - 1])
            side.engine.handle_command(SetRelayIds(number, names), 0.0)
    a.engine.handle_command(SetVia(7, None, 2, (b"C" * 7,)), 0.0)
    packet = ipv4(a.address4, b.address4, SECRET)
    a.send(packet)
    row.carry()
    assert b.take_received() == [packet]
    assert [side.drops() for side in row.sides] == [{}] * 4


def test_a_relay_reads_nothing_but_where_to() -> None:
    """All that the member in the middle gets, opened with its own keys."""
    row = Row()
    a, b = row.ends
    middle, opened = row.sides[1], []
    for peer in middle.engine._peers.by_number.values():
        plain = peer.transport.open

        def spy(datagram: bytes, now: float, plain: Any = plain) -> bytes:
            plaintext: bytes = plain(datagram, now)
            opened.append(plaintext)
            return plaintext

        peer.transport.open = spy  # type: ignore[method-assign]
    for _ in range(3):
        a.send(ipv4(a.address4, b.address4, SECRET))
        row.carry()
        b.send(ipv4(b.address4, a.address4, SECRET))
        row.carry()
    assert len(opened) == 6 and len(b.take_received()) == 3
    for frame in opened:
        assert frame[0] == 0x21 and frame[1:8] in row.ids and frame[8] in (4, 5)
        assert SECRET not in frame
        for side in (a, b):
            assert side.address4.packed not in frame and side.address6.packed not in frame


@pytest.mark.parametrize("size", [500, 9000, 60_000])
def test_trains_go_through_a_member_in_runs(size: int) -> None:
    row = Row(trains=True)
    a, b = row.ends
    packet = tcp(a.address4, b.address4, os.urandom(size))
    a.send(from_device(packet, 1000 if size > 1000 else 0))
    assert len(a.socket.sent) <= 2
    row.carry()
    written = b.take_received()
    assert b"".join(part[40:] for super_packet in written for part in packets_of(super_packet)) == packet[40:]
    assert len(written) <= 2  # a full run does not hold the headers too


def test_handshake_messages_arrive_as_control_frames() -> None:
    row = Row()
    message = b"\x01\0\0\0" + bytes(144)
    frame = frame_header(HANDSHAKE_MARK, (row.ids[2],)) + row.ids[0] + message
    row.sides[0].engine.handle_command(Send(2, frame), 0.0)
    row.carry()
    (heard,) = row.events(2, ControlFrame)
    assert heard.peer == 2 and arrived_handshake(heard.plaintext) == (row.ids[0], message)


def relay_drops(row: Row, frame: bytes) -> dict[str, int]:
    row.sides[0].engine.handle_command(Send(2, frame), 0.0)
    row.carry()
    assert row.seen[2] == []
    return {name: count for name, count in row.sides[1].drops().items() if "relay" in name}


def test_who_is_no_neighbour_gets_nothing() -> None:
    row = Row()
    row.seen[2].clear()
    assert relay_drops(row, frame_header(0x20, (b"unknown",)) + bytes(40)) == {
        "dataplane.relay_no_neighbour": 1
    }


def test_nothing_goes_back_to_where_it_came_from() -> None:
    row = Row()
    row.seen[2].clear()
    assert relay_drops(row, frame_header(0x20, (row.ids[0],)) + bytes(40)) == {
        "dataplane.relay_no_neighbour": 1
    }


def test_a_member_that_does_not_relay_sends_nothing_on() -> None:
    row = Row(rate=0)
    row.seen[2].clear()
    assert relay_drops(row, frame_header(0x20, (row.ids[2],)) + bytes(40)) == {"dataplane.relay_unwilling": 1}


@pytest.mark.parametrize("frame", [b"\x24" + bytes(60), b"\x2f" + bytes(200), b"\x21\1\1", b"\x20"])
def test_frames_that_are_none_go_nowhere(frame: bytes) -> None:
    row = Row()
    row.seen[2].clear()
    row.sides[0].engine.handle_command(Send(2, frame), 0.0)
    row.carry()
    assert row.seen[2] == []


def test_the_bandwidth_has_a_cap() -> None:
    row = Row(rate=1_000_000)
    a, b = row.ends
    packet = ipv4(a.address4, b.address4, bytes(1200))
    confirmed = len(row.seen[2])
    for step in range(2000):
        a.send(packet, now=step / 1000)
        row.carry(step / 1000)
    passed = len(row.seen[2]) - confirmed
    assert 1_500 <= passed <= 1_950 and row.sides[1].drops()["dataplane.relay_rate"] == 2000 - passed


def test_what_the_next_path_does_not_take_is_dropped_so_that_probes_tell_the_truth() -> None:
    row = Row()
    a, b = row.ends
    row.sides[1].engine.handle_command(SetPathMtu(3, 1000), 0.0)
    a.send(ipv4(a.address4, b.address4, bytes(700)), ipv4(a.address4, b.address4, bytes(960)))
    row.carry()
    assert len(b.take_received()) == 1
    assert row.sides[1].drops() == {"dataplane.relay_too_big": 1}
    assert FRAME_HEADER == 22


def test_relays_do_not_nest() -> None:
    """A session that is relayed through members carries nothing for others."""
    row = Row()
    a, b = row.ends
    frame = frame_header(0x20, (row.ids[1],)) + bytes(40)
    a.engine.handle_command(Send(3, frame), 0.0)
    row.carry()
    assert b.drops() == {"dataplane.relay_nested": 1}
