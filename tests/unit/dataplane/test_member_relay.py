"""Engines in a row, with sessions between neighbours and between the ends: frames go through."""

import os
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from engines_in_memory import Side, ipv4
from super_packets import from_device, packets_of, tcp

from dhtvpn.dataplane.messages import (
    ControlFrame,
    EndpointRoamed,
    Forward,
    HeardElsewhere,
    InstallKeypair,
    Send,
    SetEndpoint,
    SetFeatures,
    SetPathMtu,
    SetRelayIds,
    SetVia,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.relay_wire import FRAME_HEADER, HANDSHAKE_MARK, arrived_handshake, frame_header
from dhtvpn.mesh.relayed import relayed
from dhtvpn.system.tun import MemoryTun

SECRET = b"nobody on the way may read this"


class Row:
    """``count`` engines: number 0 is one end, the last is the other, and those between them relay. The peer
    number of an engine is its place plus one."""

    def __init__(self, count: int = 3, *, trains: bool = False, rate: int = 1 << 40) -> None:
        self.sides = [
            Side(
                IPv4Address(f"10.1.0.{n + 1}"),
                IPv6Address(f"fd00::{n + 1}"),
                Endpoint(f"192.0.2.{n + 1}", 4001 + n),
                MemoryTun(vnet_header=trains),
            )
            for n in range(count)
        ]
        self.ids = [bytes([n + 1]) * 7 for n in range(count)]
        self.seen: list[list[bytes]] = [[] for _ in range(count)]
        pairs = [(n, n + 1) for n in range(count - 1)]
        for a, b in [*pairs, (0, count - 1)]:
            self._session(a, b, trains)
        for side in self.sides[1:-1]:
            side.engine.handle_command(Forward(rate), 0.0)
        middle = self.ids[1:-1]
        self._reach(0, count - 1, 2, tuple(middle[1:]))
        self._reach(count - 1, 0, count - 1, tuple(reversed(middle[:-1])))

    @property
    def ends(self) -> tuple[Side, Side]:
        return self.sides[0], self.sides[-1]

    def _session(self, a: int, b: int, trains: bool) -> None:
        keys = os.urandom(32), os.urandom(32)
        for own, other, initiator in ((a, b, True), (b, a, False)):
            side = self.sides[own]
            side.know(self.sides[other], other + 1)
            send, receive = keys if initiator else keys[::-1]
            index = (own + 1) * 100 + other, (other + 1) * 100 + own
            command = InstallKeypair(other + 1, *index, send, receive, initiator, 0.0)
            side.engine.handle_command(command, 0.0)
            side.engine.handle_command(SetRelayIds(other + 1, (self.ids[other],)), 0.0)
            side.engine.handle_command(SetFeatures(other + 1, trains, trains, aes=False, blocks=trains), 0.0)
        if a + 1 != b or len(self.sides) == 2:
            return
        self.sides[a].engine.handle_command(Send(b + 1, b""), 0.0)  # confirms the responder's keypair
        self.sides[b].receive(*self.sides[a].take_sent(), source=self.sides[a].endpoint)

    def _reach(self, own: int, other: int, carrier: int, through: tuple[bytes, ...]) -> None:
        engine = self.sides[own].engine
        engine.handle_command(SetVia(7, None, carrier, through), 0.0)
        if through:
            engine.handle_command(SetVia(8, None, carrier), 0.0)
        engine.handle_command(SetEndpoint(other + 1, relayed(7, other + 1)), 0.0)

    def carry(self, now: float = 0.0) -> None:
        """Take datagrams to whose address they go, in runs, until none is left."""
        places = {side.endpoint: n for n, side in enumerate(self.sides)}
        while any(side.socket.sent for side in self.sides):
            for side in self.sides:
                sent, side.socket.sent = side.socket.sent, []
                side.socket.marks.clear()
                for run, address in sent:
                    self.seen[places[address]] += run
                    self.sides[places[address]].receive_run(run, source=tuple(side.endpoint), now=now)

    def events(self, n: int, kind: type[Any]) -> list[Any]:
        return [event for event in self.sides[n].events if isinstance(event, kind)]


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
