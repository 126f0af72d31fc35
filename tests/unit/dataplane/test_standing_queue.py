"""When a queue that does not go away is answered by a signal."""

import struct
from itertools import pairwise

import pytest
from engines_in_memory import Pair, Side, ipv4, keypair_a, keypair_b

from dhtvpn.dataplane.inbound import QUEUE_BYTES
from dhtvpn.dataplane.messages import SetFeatures
from dhtvpn.dataplane.outbound import DEVICE_BATCH_BYTES
from dhtvpn.dataplane.standing_queue import INTERVAL_S, TARGET_S, StandingQueue
from dhtvpn.packet import ecn, virtio
from dhtvpn.system.tun import MemoryTun

A4, B4 = "10.1.0.1", "10.1.0.2"


def test_a_burst_is_no_standing_queue() -> None:
    queue = StandingQueue()
    assert not queue.signal(50.0)
    queue.turn_ended(False, 50.0)
    assert not queue.signal(50.0 + TARGET_S / 2)
    queue.turn_ended(True, 50.0 + TARGET_S)
    queue.turn_ended(False, 60.0)
    assert not queue.signal(60.0 + TARGET_S / 2)


def test_signals_follow_faster_and_faster() -> None:
    queue = StandingQueue()
    queue.turn_ended(False, 10.0)
    times = [10.0 + step / 1000 for step in range(1000) if queue.signal(10.0 + step / 1000)]
    assert times[0] == pytest.approx(10.0 + TARGET_S)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] == pytest.approx(INTERVAL_S, abs=0.002)
    assert all(later < earlier + 0.0015 for earlier, later in pairwise(gaps)) and gaps[-1] < INTERVAL_S / 3


def test_they_begin_anew_after_a_rest() -> None:
    queue = StandingQueue()
    queue.turn_ended(False, 10.0)
    for step in range(1000):
        queue.signal(10.0 + step / 1000)
    queue.turn_ended(True, 11.0)
    queue.turn_ended(False, 20.0)
    times = [step for step in range(250) if queue.signal(20.0 + step / 1000)]
    assert times[1] - times[0] == pytest.approx(INTERVAL_S * 1000, abs=2)


def super_packet(mark: int, payload: int = 60_000) -> bytes:
    """A TCP super-packet with these ECN bits, behind its virtio header."""
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 5 << 4, 0x10, 100, 0, 0) + bytes(payload)
    packet = bytearray(ipv4(A4, B4, tcp, protocol=6))
    packet[1] = mark
    return virtio.HEADER.pack(virtio.NEEDS_CHECKSUM, virtio.GSO_TCPV4, 40, 1380, 20, 16) + bytes(packet)


def busy_pair() -> Pair:
    """Two engines that speak in trains; more waits at the first one's device than one turn takes."""
    pair = Pair.make(keys=False)
    for side in ("a", "b"):
        old = getattr(pair, side)
        setattr(pair, side, Side(old.address4, old.address6, old.endpoint, tun=MemoryTun(vnet_header=True)))
    pair.a.know(pair.b)
    pair.b.know(pair.a)
    for side, keypair in ((pair.a, keypair_a()), (pair.b, keypair_b())):
        side.engine.handle_command(SetFeatures(1, trains=True, udp_trains=True, aes=False, blocks=False), 0.0)
        side.engine.handle_command(keypair, 0.0)
    return pair


@pytest.mark.parametrize("mark", [ecn.NOT_ECT, ecn.ECT_0])
def test_a_queue_at_the_device_costs_one_piece_or_is_marked(mark: int) -> None:
    pair = busy_pair()
    packets = 2 * (DEVICE_BATCH_BYTES // 60_000 + 1)
    pair.a.tun.sent_by_host.extend(super_packet(mark) for _ in range(packets))
    pair.a.engine.device_readable(1.0)
    pair.a.engine.device_readable(1.0 + 2 * TARGET_S)
    lost = mark == ecn.NOT_ECT
    assert pair.a.drops() == ({"dataplane.standing_queue_out": 1} if lost else {})
    pieces = -(-60_000 // 1380)
    assert len(pair.a.take_sent()) == packets * pieces - lost


@pytest.mark.parametrize("mark", [ecn.NOT_ECT, ecn.ECT_0])
def test_a_queue_in_the_socket_costs_one_piece_or_is_marked(mark: int) -> None:
    pair = busy_pair()
    pair.b.socket.waiting_bytes = QUEUE_BYTES
    home = ("192.0.2.1", 4001)
    for turn in range(2):
        for _ in range(8):  # one turn of the socket
            pair.a.send(super_packet(mark, 12_000))
            run = pair.a.take_sent()
            pair.b.socket.arrived.append((b"".join(run), len(run[0]), home))
        pair.b.engine.socket_readable(pair.b.socket, 1.0 + turn * 2 * TARGET_S)  # type: ignore[arg-type]
    received = [packet[virtio.SIZE :] for packet in pair.b.tun.received_by_host]
    lost = mark == ecn.NOT_ECT
    assert pair.b.drops() == ({"dataplane.standing_queue_in": 1} if lost else {})
    assert sum(len(packet) - 40 for packet in received) == 16 * 12_000 - lost * 1380
    assert [ecn.bits_of(packet) for packet in received].count(ecn.CE) == (0 if lost else 1)
