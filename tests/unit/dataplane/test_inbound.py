"""Datagrams that arrive: what gets through, what is dropped under which name, what is told."""

import errno
import os
import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from engines_in_memory import INDEX_B, Pair, ipv4, ipv6, keypair_a, keypair_b

from dhtvpn.dataplane import inbound
from dhtvpn.dataplane.frame_gate import FRAMES_BURST
from dhtvpn.dataplane.messages import (
    MAX_FRAME,
    Activity,
    Configure,
    ControlFrame,
    Datagram,
    EndpointRoamed,
    EraseKeypairs,
    KeypairConfirmed,
    RemovePeer,
    Send,
    SetPeer,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.packet.ip import addresses

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"
HOME = ("192.0.2.1", 4001)


def sealed(pair: Pair, plaintext: bytes, now: float = 0.0) -> bytes:
    """A datagram from a to b, whatever it holds."""
    datagram = pair.a.engine._peers.by_number[1].transport.seal(plaintext, now)
    assert datagram is not None
    return datagram


def dropped(pair: Pair, *datagrams: bytes, source: Any = HOME) -> dict[str, int]:
    pair.b.receive(*datagrams, source=source)
    assert pair.b.tun.received_by_host == []
    return {name.removeprefix("dataplane."): count for name, count in pair.b.drops().items()}


def test_the_padding_stays_behind() -> None:
    pair = Pair.make()
    pair.b.receive(sealed(pair, ipv4(A4, B4, b"x") + bytes(11)), source=HOME)
    assert pair.b.tun.received_by_host == [ipv4(A4, B4, b"x")]


def test_a_run_is_taken_apart() -> None:
    pair = Pair.make()
    packets = [ipv4(A4, B4, bytes([n]) * 100) for n in range(5)] + [ipv4(A4, B4)]
    run = [sealed(pair, packet) for packet in packets]
    pair.b.socket.arrived.append((b"".join(run), len(run[0]), HOME))
    pair.b.receive()
    assert pair.b.tun.received_by_host == packets


def test_one_socket_gets_a_bounded_turn() -> None:
    pair = Pair.make()
    for _ in range(inbound.SOCKET_BATCH + 3):
        pair.b.socket.arrived.append((b"x", 1, HOME))
    pair.b.engine.socket_readable(pair.b.socket, 0.0)  # type: ignore[arg-type]
    assert len(pair.b.socket.arrived) == 3


def test_a_socket_error_is_counted() -> None:
    pair = Pair.make()
    pair.b.socket.receive_error = errno.ECONNREFUSED
    assert dropped(pair) == {}
    pair.b.engine.socket_readable(pair.b.socket, 0.0)  # type: ignore[arg-type]
    assert pair.b.drops() == {"dataplane.udp_receive": 1}


def test_strangers_get_nothing_through() -> None:
    pair = Pair.make()
    good = sealed(pair, ipv4(A4, B4))
    wrong_tag = good[:-1] + bytes([good[-1] ^ 1])
    wrong_index = good[:4] + struct.pack("<I", INDEX_B + 1) + good[8:]
    other_cipher = b"\x05" + good[1:]
    next_type = b"\x06" + good[1:]
    reserved = good[:1] + b"\x01" + good[2:]
    assert dropped(pair, b"", good[:31], next_type, reserved, other_cipher, wrong_index, wrong_tag) == {
        "not_data": 4,
        "unknown_index": 1,
        "data_tag": 2,
    }
    assert pair.b.events == []  # nothing was told, nobody roamed


def test_a_replay_is_dropped_and_moves_nobody() -> None:
    pair = Pair.make()
    good = sealed(pair, ipv4(A4, B4))
    pair.b.receive(good, source=HOME)
    pair.b.events.clear()
    pair.b.receive(good, source=("203.0.113.1", 1))
    assert pair.b.drops() == {"dataplane.data_replay": 1}
    assert len(pair.b.tun.received_by_host) == 1
    assert pair.b.events == []


def test_an_old_keypair_opens_nothing() -> None:
    pair = Pair.make()
    good = sealed(pair, ipv4(A4, B4), now=179.0)
    pair.b.receive(good, source=HOME, now=180.0)
    assert pair.b.drops() == {"dataplane.data_expired": 1}


def test_a_peer_may_use_its_own_addresses_only() -> None:
    pair = Pair.make()
    packets = [ipv4("10.1.0.3", B4), ipv4(B4, B4), ipv6("fd00::3", B6), ipv4("127.0.0.1", B4)]
    assert dropped(pair, *(sealed(pair, packet) for packet in packets)) == {"source_not_allowed": 4}


def test_the_longest_prefix_decides_whose_source_it_is() -> None:
    pair = Pair.make()
    pair.b.engine.handle_command(SetPeer(1, (ip_network("10.0.0.0/8"),), None), 0.0)
    pair.b.engine.handle_command(SetPeer(2, (ip_network("10.1.0.3"),), None), 0.0)
    pair.b.receive(sealed(pair, ipv4("10.2.0.1", B4)), sealed(pair, ipv4("10.1.0.3", B4)), source=HOME)
    assert [addresses(p)[1] for p in pair.b.tun.received_by_host] == [bytes([10, 2, 0, 1])]


def test_only_our_addresses_get_packets() -> None:
    pair = Pair.make()
    packets = [ipv4(A4, "10.1.0.3"), ipv4(A4, "224.0.0.1"), ipv6(A6, "ff02::1"), ipv4(A4, "127.0.0.1")]
    assert dropped(pair, *(sealed(pair, packet) for packet in packets)) == {"not_for_us": 4}
    pair.b.engine.handle_command(Configure((ip_address("10.1.0.3"),), 1420), 0.0)
    pair.b.receive(sealed(pair, packets[0]), source=HOME)
    assert pair.b.tun.received_by_host == [packets[0]]


def test_a_packet_that_is_none_is_dropped() -> None:
    pair = Pair.make()
    packets = [b"\x45", ipv4(A4, B4, bytes(40))[:20], b"\x60" + bytes(20), b"\x41" + ipv4(A4, B4)[1:]]
    assert dropped(pair, *(sealed(pair, packet) for packet in packets)) == {"bad_packet_in": 4}


def test_a_device_that_refuses_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair.make()

    def refuse(parts: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pair.b.engine._inbound._delivery._device, "writev", refuse)
    assert dropped(pair, sealed(pair, ipv4(A4, B4))) == {"device_write": 1}


def test_control_frames_go_to_the_control_process() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(Send(1, b"\x01frame"), 0.0)
    pair.carry()
    frames = [event for event in pair.b.events if isinstance(event, ControlFrame)]
    assert frames == [ControlFrame(1, b"\x01frame" + bytes(10), Endpoint(*HOME))]
    assert pair.b.tun.received_by_host == []


def test_control_frames_are_capped_in_size_and_rate() -> None:
    pair = Pair.make()
    too_long = sealed(pair, b"\x01" * (MAX_FRAME + 1))
    assert dropped(pair, too_long) == {"frame_size": 1}
    for _ in range(FRAMES_BURST + 7):
        pair.b.receive(sealed(pair, b"\x01"), source=HOME)
    frames = [event for event in pair.b.events if isinstance(event, ControlFrame)]
    assert len(frames) == FRAMES_BURST
    assert pair.b.drops()["dataplane.frame_rate"] == 7
    pair.b.receive(sealed(pair, b"\x01"), source=HOME, now=1.0)
    assert len(pair.b.events) > len(frames)


def test_the_first_message_on_a_keypair_confirms_it_and_is_told_at_once() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(Send(1, b""), 0.0)
    pair.carry()
    assert pair.b.events == [
        KeypairConfirmed(1, INDEX_B),
        Activity(1, False, False, 32, 0, Endpoint(*HOME), False, True),
    ]
    pair.a.send(ipv4(A4, B4))
    pair.carry()
    assert len(pair.b.events) == 2  # later ones wait for the report
    pair.b.engine.handle_timeout(10.0)
    assert pair.b.events[2] == Activity(1, False, True, 96, 0, Endpoint(*HOME))


def test_an_authenticated_message_moves_the_endpoint() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(Send(1, b""), 0.0)
    pair.carry()
    new = ("203.0.113.7", 999)
    pair.b.receive(sealed(pair, ipv4(A4, B4)), source=new)
    assert EndpointRoamed(1, Endpoint(*new)) in pair.b.events
    pair.b.send(ipv4(B4, A4))
    assert pair.b.socket.sent[-1][1] == new


def test_nobody_moves_to_port_zero() -> None:
    pair = Pair.make()
    assert dropped(pair, sealed(pair, ipv4(A4, B4)), source=("203.0.113.7", 0)) == {"source_port": 1}
    assert pair.b.engine._peers.by_number[1].endpoint == Endpoint(*HOME)


def test_keys_that_are_gone_open_nothing() -> None:
    pair = Pair.make()
    before = sealed(pair, ipv4(A4, B4))
    pair.b.engine.handle_command(EraseKeypairs(1), 0.0)
    assert dropped(pair, before) == {"unknown_index": 1}
    pair.a.engine.handle_command(RemovePeer(1), 0.0)
    assert pair.a.engine._peers.by_index == {}


def test_a_datagram_by_way_of_the_control_process() -> None:
    pair = Pair.make()
    pair.b.engine.handle_command(Datagram(sealed(pair, ipv4(A4, B4)), Endpoint(*HOME)), 0.0)
    assert pair.b.tun.received_by_host == [ipv4(A4, B4)]


def test_a_new_keypair_takes_over_and_the_old_one_still_opens() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(Send(1, b""), 0.0)
    pair.carry()
    late = sealed(pair, ipv4(A4, B4, b"late"))
    pair.b.engine.handle_command(replace(keypair_b(), local_index=21, remote_index=11), 1.0)
    pair.a.engine.handle_command(replace(keypair_a(), local_index=11, remote_index=21), 1.0)
    pair.a.send(ipv4(A4, B4, b"new"))
    pair.carry()
    pair.b.receive(late, source=HOME)
    assert pair.b.tun.received_by_host == [ipv4(A4, B4, b"new"), ipv4(A4, B4, b"late")]
    assert sorted(pair.b.engine._peers.by_index) == [INDEX_B, 21]


def test_a_neighbour_is_followed_to_its_link_and_to_no_other() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(Send(1, b""), 0.0)
    pair.carry()
    near = ("fe80::1", 999, 0, 3)
    pair.b.receive(sealed(pair, ipv4(A4, B4)), source=near)
    assert EndpointRoamed(1, Endpoint("fe80:3::1", 999)) in pair.b.events
    pair.b.send(ipv4(B4, A4))
    assert pair.b.socket.sent[-1][1] == near
    for source in (("fe80:3::1", 999, 0, 3), ("fe80::1", 999, 0, 0)):
        pair.b.receive(sealed(pair, ipv4(A4, B4)), source=source)
    assert pair.b.drops() == {"dataplane.source_zone": 2}
    assert pair.b.engine._peers.by_number[1].endpoint == Endpoint("fe80:3::1", 999)
