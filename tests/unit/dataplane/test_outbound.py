"""Packets that leave: who gets them, in which runs, and what the sender is told when they cannot go."""

import errno
import socket
from collections.abc import Sequence

import pytest
from engines_in_memory import MTU, Pair, ipv4, ipv6, keypair_a, keypair_b

from dhtvpn.dataplane import peers
from dhtvpn.dataplane.messages import (
    Activity,
    EraseKeypairs,
    NeedHandshake,
    RemovePeer,
    Send,
    SetEndpoint,
    SetPeer,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.packet.ip import parse
from dhtvpn.wireguard.constants import REKEY_AFTER_MESSAGES

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"


def busy_pair() -> Pair:
    """Two engines, the first of which has more than one packet at a time to send."""
    pair = Pair.make()
    pair.a.send(ipv4(A4, B4), ipv4(A4, B4))
    pair.a.take_sent()
    return pair


def test_a_lonely_packet_does_not_wait_for_others() -> None:
    pair = Pair.make()
    for _ in range(2):
        pair.a.send(ipv4(A4, B4))
        assert len(pair.a.take_sent()) == 1
    pair.a.send(*(ipv4(A4, B4) for _ in range(3)))
    assert [len(run) for run, _ in pair.a.socket.sent] == [1, 2]


def test_packets_of_both_families_reach_the_other_host() -> None:
    pair = Pair.make()
    packets = [ipv4(A4, B4), ipv6(A6, B6, b"six"), ipv4(A4, B4, bytes(MTU - 20))]
    pair.a.send(*packets)
    pair.carry()
    assert pair.b.tun.received_by_host == packets


def test_a_batch_leaves_in_runs_of_equal_datagrams() -> None:
    pair = busy_pair()
    sizes = [1000, 1000, 1000, 300, 300, 900]
    pair.a.send(*(ipv4(A4, B4, bytes(size)) for size in sizes))
    runs = [[len(datagram) for datagram in run] for run, _ in pair.a.socket.sent]
    big, small, last = 1024 + 32, 320 + 32, 928 + 32
    assert runs == [[big, big, big, small], [small], [last]]
    assert all(address == ("192.0.2.2", 4002) for _, address in pair.a.socket.sent)


def test_a_run_fits_one_ip_packet() -> None:
    pair = busy_pair()
    pair.a.send(*(ipv4(A4, B4, bytes(1400)) for _ in range(64)))
    assert [len(run) for run, _ in pair.a.socket.sent] == [45, 19]


def test_without_segments_every_datagram_goes_alone() -> None:
    pair = Pair.make()
    pair.a.engine._outbound._transmitter._segments = {socket.AF_INET: False}
    pair.a.send(ipv4(A4, B4), ipv4(A4, B4))
    assert [len(run) for run, _ in pair.a.socket.sent] == [1, 1]


def test_padding_keeps_to_the_mtu_and_holds_zeros_only() -> None:
    pair = Pair.make()
    pair.a.send(ipv4(A4, B4, b"\xff" * 1000), ipv4(A4, B4, b"x"), ipv4(A4, B4, bytes(MTU - 20)))
    datagrams = pair.a.take_sent()
    assert [len(d) - 32 for d in datagrams] == [1024, 32, MTU]
    transport = pair.b.engine._peers.by_number[1].transport
    assert transport.open(datagrams[1], 0.0) == ipv4(A4, B4, b"x") + bytes(11)


def test_nobody_holds_the_destination() -> None:
    pair = Pair.make()
    pair.a.send(ipv4(A4, "10.1.0.77"), ipv6(A6, "fd00::77"))
    assert pair.a.take_sent() == []
    answers = [parse(answer) for answer in pair.a.tun.received_by_host]
    assert [(a.version, a.protocol, a.destination[-1], a.source[-1]) for a in answers] == [
        (4, 1, 1, 77),
        (6, 58, 1, 0x77),
    ]
    assert pair.a.drops() == {"dataplane.no_peer": 2}


def test_groups_are_dropped_without_an_answer() -> None:
    pair = Pair.make()
    pair.a.send(ipv6(A6, "ff02::2"), ipv4(A4, "224.0.0.251"), ipv4(A4, "255.255.255.255"))
    assert pair.a.tun.received_by_host == pair.a.take_sent() == []
    assert pair.a.drops() == {"dataplane.group_out": 3}


def test_answers_are_limited_in_rate() -> None:
    pair = Pair.make()
    pair.a.send(*(ipv4(A4, "10.1.0.77") for _ in range(200)))
    assert len(pair.a.tun.received_by_host) == 50


def test_what_is_no_packet_is_dropped() -> None:
    pair = Pair.make()
    pair.a.send(b"\x45", b"\x00" * 40, ipv4(A4, B4)[:-1])
    assert pair.a.take_sent() == []
    assert pair.a.drops() == {"dataplane.bad_packet_out": 3}


def test_packets_wait_for_a_keypair_and_then_go_in_order() -> None:
    pair = Pair.make(keys=False)
    packets = [ipv4(A4, B4, bytes([n])) for n in range(5)]
    pair.a.send(*packets)
    pair.a.send(packets[0], now=0.5)
    assert pair.a.take_sent() == []
    assert pair.a.events == [NeedHandshake(1)]  # asked for once
    pair.a.send(packets[1], now=1.5)
    assert pair.a.events == [NeedHandshake(1)] * 2
    pair.b.engine.handle_command(keypair_b(created_at=2.0), 2.0)
    pair.a.engine.handle_command(keypair_a(created_at=2.0), 2.0)
    pair.carry(2.0)
    assert pair.b.tun.received_by_host == [*packets, packets[0], packets[1]]


def test_the_queue_is_capped_and_keeps_the_newest() -> None:
    pair = Pair.make(keys=False)
    for n in range(peers.MAX_QUEUED_PACKETS + 6):
        pair.a.send(ipv4(A4, B4, bytes([n])))
    assert pair.a.drops() == {"dataplane.queue_full": 6}
    pair.a.engine.handle_command(keypair_a(), 0.0)
    assert len(pair.a.take_sent()) == peers.MAX_QUEUED_PACKETS


def test_the_queue_is_capped_in_bytes_for_one_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_QUEUED_BYTES", 3000)
    monkeypatch.setattr(peers, "MAX_QUEUED_TOTAL", 4000)
    pair = Pair.make(keys=False)
    pair.a.engine.handle_command(SetPeer(2, (), None), 0.0)
    table = pair.a.engine._peers
    one, two = table.by_number[1], table.by_number[2]
    assert [table.enqueue(one, waiting(1000)) for _ in range(4)] == [0, 0, 0, 1]
    assert table.enqueue(one, waiting(3001)) == 1
    assert [table.enqueue(two, waiting(1000)) for _ in range(2)] == [0, 1]
    table.erase_keypairs(one)
    assert [table.enqueue(two, waiting(1000)) for _ in range(2)] == [0, 0]


def waiting(size: int) -> peers.Waiting:
    return peers.Waiting(bytes(size), 0.0, is_packet=True)


def test_what_waited_too_long_is_not_sent() -> None:
    pair = Pair.make(keys=False)
    pair.a.send(ipv4(A4, B4), now=0.0)
    pair.a.send(ipv4(A4, B4), now=8.0)
    pair.a.engine.handle_command(keypair_a(created_at=11.0), 11.0)
    assert len(pair.a.take_sent()) == 1


def test_erasing_keys_empties_the_queue() -> None:
    pair = Pair.make(keys=False)
    pair.a.send(ipv4(A4, B4))
    pair.a.engine.handle_command(EraseKeypairs(1), 0.0)
    pair.a.engine.handle_command(keypair_a(), 0.0)
    assert pair.a.take_sent() == []


def test_a_responder_waits_for_the_initiators_first_message() -> None:
    pair = Pair.make()
    pair.b.send(ipv4(B4, A4))
    assert pair.b.take_sent() == []
    pair.a.engine.handle_command(Send(1, b""), 0.0)
    pair.carry()
    assert pair.a.tun.received_by_host == [ipv4(B4, A4)]


def test_a_keypair_past_180_s_is_not_used() -> None:
    pair = Pair.make()
    pair.a.send(ipv4(A4, B4), now=179.9)
    assert len(pair.a.take_sent()) == 1
    pair.a.send(ipv4(A4, B4), now=180.0)
    assert pair.a.take_sent() == []
    assert NeedHandshake(1) in pair.a.events


def test_no_endpoint_is_counted() -> None:
    pair = Pair.make(keys=False)
    pair.a.engine.handle_command(SetPeer(2, (), None), 0.0)
    pair.a.engine.handle_command(keypair_a(peer=2), 0.0)
    pair.a.engine.handle_command(Send(2, b"\x01frame"), 0.0)
    pair.a.engine.handle_command(SetEndpoint(2, Endpoint("2001:db8::1", 1)), 0.0)
    pair.a.engine.handle_command(Send(2, b"\x01frame"), 0.0)  # no IPv6 socket here
    assert pair.a.drops() == {"dataplane.no_endpoint": 2}


def test_a_keepalive_without_a_keypair_is_not_kept() -> None:
    pair = Pair.make(keys=False)
    pair.a.engine.handle_command(Send(1, b""), 0.0)
    pair.a.engine.handle_command(Send(1, b"\x01frame"), 0.0)
    pair.a.engine.handle_command(keypair_a(), 0.0)
    assert [len(datagram) for datagram in pair.a.take_sent()] == [48]


def test_a_removed_peer_gets_nothing() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(RemovePeer(1), 0.0)
    pair.a.engine.handle_command(RemovePeer(1), 0.0)
    pair.a.engine.handle_command(Send(1, b"x"), 0.0)
    pair.a.send(ipv4(A4, B4))
    assert pair.a.take_sent() == []
    assert pair.a.drops() == {"dataplane.no_peer": 1, "dataplane.unknown_peer": 1}


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS])
def test_a_full_socket_is_counted(code: int) -> None:
    pair = Pair.make()
    pair.a.socket.refuse = lambda run: code
    pair.a.send(ipv4(A4, B4), ipv4(A4, B4))
    assert pair.a.drops() == {"dataplane.udp_busy": 2}
    assert pair.a.engine.next_timeout() is not None  # to report the drops


def test_a_refused_run_is_counted_and_runs_go_on() -> None:
    pair = Pair.make()
    pair.a.socket.refuse = lambda run: errno.ENETUNREACH
    pair.a.send(ipv4(A4, B4), ipv4(A4, B4))
    assert pair.a.drops() == {"dataplane.udp_refused": 2}
    pair.a.socket.refuse = lambda run: None
    pair.a.send(ipv4(A4, B4), ipv4(A4, B4))
    assert [len(run) for run, _ in pair.a.socket.sent] == [2]


def test_a_way_without_offload_gets_single_datagrams_from_then_on() -> None:
    pair = busy_pair()
    tried = []

    def refuse(run: Sequence[bytes]) -> int | None:
        tried.append(len(run))
        return errno.EIO if len(run) > 1 else None

    pair.a.socket.refuse = refuse
    pair.a.send(ipv4(A4, B4), ipv4(A4, B4))
    pair.a.send(ipv4(A4, B4), ipv4(A4, B4))
    assert tried == [2, 1, 1, 1, 1]


def test_a_run_that_is_too_long_for_the_link_leaves_one_by_one() -> None:
    """A link of 1300 bytes: the kernel fragments single datagrams, and refuses to cut a run of them."""
    pair = Pair.make()
    pair.a.socket.refuse = lambda run: errno.EINVAL if len(run) > 1 and len(run[0]) > 1272 else None
    packets = [ipv4(A4, B4, bytes(1380)) for _ in range(3)]
    pair.a.send(*packets)
    pair.carry()
    assert pair.b.tun.received_by_host == packets
    assert pair.a.tun.received_by_host == [] and pair.a.drops() == {}


def test_what_was_sent_is_reported() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(Send(1, b""), 0.0)
    pair.a.engine.handle_timeout(0.3)
    pair.a.send(ipv4(A4, B4), now=1.0)
    assert pair.a.engine.next_timeout() == 1.25
    pair.a.engine.handle_timeout(1.25)
    first, second = (event for event in pair.a.events if isinstance(event, Activity))
    assert (first.sent, first.keepalive_sent, first.tx_bytes) == (False, True, 32)
    assert (second.sent, second.keepalive_sent, second.tx_bytes) == (True, False, 32 + 64)


def test_a_keypair_that_has_sealed_too_much_is_told_of() -> None:
    pair = Pair.make()
    session = pair.a.engine._peers.by_number[1].transport.sending(0.0)
    assert session is not None
    session.counter = REKEY_AFTER_MESSAGES
    pair.a.send(ipv4(A4, B4), now=2.0)
    pair.a.engine.handle_timeout(3.0)
    assert NeedHandshake(1) in pair.a.events and len(pair.a.take_sent()) == 1
