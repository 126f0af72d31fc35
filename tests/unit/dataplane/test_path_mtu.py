"""What the engine does about the path MTU: probes as they are, packets that are too big, the last resort."""

import errno
import socket
import struct
from collections.abc import Sequence

import pytest
from engines_in_memory import Pair, Side, ipv4, ipv6, keypair_a, keypair_b

from dhtvpn.dataplane import unfragmented as module
from dhtvpn.dataplane.messages import (
    ControlFrame,
    NeedHandshake,
    ProbeRefused,
    SendProbe,
    SetFeatures,
    SetPathMtu,
)
from dhtvpn.packet import virtio
from dhtvpn.packet.ip import parse
from dhtvpn.system.tun import MemoryTun

A4, B4, A6, B6 = "10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"
DF = 0x4000
PROBE, DISCOVER = module.PMTUDISC_PROBE, (socket.IPPROTO_IP, module.IP_MTU_DISCOVER)


@pytest.mark.parametrize("size", [11, 1220, 1224, 1432, 8940])
def test_a_probe_leaves_as_long_as_it_is_and_unfragmented(size: int) -> None:
    pair = Pair.make()
    frame = b"\x05\x00\x08tokentok".ljust(size, b"\0")
    pair.a.engine.handle_command(SendProbe(1, frame), 0.0)
    assert pair.a.socket.options == [(*DISCOVER, PROBE), (*DISCOVER, 0)], "and as it was before, afterwards"
    assert [len(datagram) for run, _ in pair.a.socket.sent for datagram in run] == [size + 32]
    pair.carry()
    (arrived,) = [event for event in pair.b.events if isinstance(event, ControlFrame)]
    assert arrived.plaintext == frame


def test_a_probe_that_the_own_link_does_not_take_is_told() -> None:
    pair = Pair.make()
    pair.a.socket.refuse = lambda run: errno.EMSGSIZE
    pair.a.engine.handle_command(SendProbe(1, bytes(8940)), 0.0)
    assert pair.a.events == [ProbeRefused(1, 8940)]
    pair.a.socket.refuse = lambda run: errno.ENETUNREACH
    pair.a.engine.handle_command(SendProbe(1, bytes(1220)), 0.0)
    assert pair.a.drops() == {"dataplane.probe_unsent": 1}
    assert pair.a.socket.options[-1] == (*DISCOVER, 0)


def test_a_probe_without_a_keypair_is_lost() -> None:
    pair = Pair.make(keys=False)
    pair.a.engine.handle_command(SendProbe(1, bytes(1220)), 0.0)
    assert pair.a.events == [] and pair.a.drops() == {"dataplane.probe_unsent": 1}


def answers(packets: Sequence[bytes]) -> list[tuple[int, int, int]]:
    """Version, ICMP type, and the MTU that is named."""
    found = []
    for packet in packets:
        header = parse(packet)
        start = 26 if header.version == 4 else 44
        found.append(
            (header.version, packet[header.payload_offset], int.from_bytes(packet[start:][:2], "big"))
        )
        if header.version == 6:
            found[-1] = (6, packet[40], int.from_bytes(packet[44:48], "big"))
    return found


def test_what_is_too_big_is_answered_with_the_mtu() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(SetPathMtu(1, 1400), 0.0)
    fits = [ipv4(A4, B4, bytes(1380), flags=DF), ipv6(A6, B6, bytes(1360))]
    pair.a.send(*fits, ipv4(A4, B4, bytes(1381), flags=DF), ipv6(A6, B6, bytes(1361)))
    assert answers(pair.a.tun.received_by_host) == [(4, 3, 1400), (6, 2, 1400)]
    assert pair.a.drops() == {"dataplane.too_big": 2}
    pair.carry()
    assert pair.b.tun.received_by_host == fits


def test_ipv6_keeps_its_least_mtu_and_ipv4_may_be_fragmented() -> None:
    """On an outer path of 1,280 the inner one has 1,220: what must not be refused goes in inner fragments."""
    pair = Pair.make()
    pair.a.engine.handle_command(SetPathMtu(1, 1220), 0.0)
    passing = [ipv6(A6, B6, bytes(1240)), ipv4(A4, B4, bytes(1400), flags=0)]
    pair.a.send(*passing, ipv6(A6, B6, bytes(1241)), ipv4(A4, B4, bytes(1201), flags=DF))
    assert answers(pair.a.tun.received_by_host) == [(6, 2, 1280), (4, 3, 1220)]
    assert all(len(datagram) <= 1220 + 32 for run, _ in pair.a.socket.sent for datagram in run)
    pair.carry()
    received = [parse(piece) for piece in pair.b.tun.received_by_host]
    assert [(piece.version, piece.fragment_offset) for piece in received] == [
        (6, 0),
        (6, 1168),
        (4, 0),
        (4, 1200),
    ]


def test_what_cannot_be_cut_goes_whole() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(SetPathMtu(1, 1220), 0.0)
    with_options = bytes([0x46]) + ipv4(A4, B4, bytes(1400), flags=0)[1:]
    pair.a.send(with_options)
    pair.carry()
    assert pair.b.tun.received_by_host == [with_options]


def test_what_waits_for_a_keypair_is_cut_when_it_goes() -> None:
    pair = Pair.make(keys=False)
    pair.a.engine.handle_command(SetPathMtu(1, 1220), 0.0)
    pair.a.send(ipv6(A6, B6, bytes(1240)))
    assert pair.a.events == [NeedHandshake(1)]
    pair.b.engine.handle_command(keypair_b(created_at=0.0), 0.0)
    pair.a.engine.handle_command(keypair_a(created_at=0.0), 0.0)
    pair.carry()
    assert len(pair.b.tun.received_by_host) == 2


def test_padding_keeps_to_the_path_mtu() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(SetPathMtu(1, 1220), 0.0)
    pair.a.send(ipv4(A4, B4, bytes(1198)))
    assert [len(datagram) for datagram in pair.a.take_sent()] == [1220 + 32]


def test_a_jumbo_path_takes_jumbo_packets() -> None:
    pair = Pair.make()
    pair.a.engine.handle_command(SetPathMtu(1, 8940), 0.0)
    packet = ipv4(A4, B4, bytes(8920), flags=DF)
    pair.a.send(packet)
    pair.carry()
    assert pair.b.tun.received_by_host == [packet]


def test_the_option_of_an_ipv6_socket() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        option = socket.IPPROTO_IPV6, module.IPV6_MTU_DISCOVER
        before = sock.getsockopt(*option)
        with module.unfragmented(sock):
            assert sock.getsockopt(*option) == PROBE
        assert sock.getsockopt(*option) == before


def with_super_packets() -> Pair:
    pair = Pair.make(keys=False)
    pair.a = Side(pair.a.address4, pair.a.address6, pair.a.endpoint, tun=MemoryTun(vnet_header=True))
    pair.a.know(pair.b)
    pair.a.engine.handle_command(SetPathMtu(1, 1220), 0.0)
    pair.a.engine.handle_command(keypair_a(), 0.0)
    return pair


def super_packet(version: int, segment: int, payload: int = 6000) -> bytes:
    """A TCP super-packet behind its virtio header."""
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 5 << 4, 0x10, 100, 0, 0) + bytes(payload)
    ip_length = 20 if version == 4 else 40
    kind = virtio.GSO_TCPV4 if version == 4 else virtio.GSO_TCPV6
    packet = ipv4(A4, B4, tcp, protocol=6, flags=DF) if version == 4 else ipv6(A6, B6, tcp, next_header=6)
    return virtio.HEADER.pack(virtio.NEEDS_CHECKSUM, kind, ip_length + 20, segment, ip_length, 16) + packet


@pytest.mark.parametrize(("version", "segment", "named"), [(4, 1181, 1220), (6, 1221, 1280)])
def test_a_super_packet_of_segments_that_are_too_big_leaves_in_smaller_ones(
    version: int, segment: int, named: int
) -> None:
    pair = with_super_packets()
    pair.a.send(super_packet(version, segment))
    sizes = [len(datagram) - 32 for datagram in pair.a.take_sent()]
    assert len(sizes) == 6 and max(sizes) == 1220
    (answer,) = answers([packet[virtio.SIZE :] for packet in pair.a.tun.received_by_host])
    assert answer == (version, 3 if version == 4 else 2, named)
    assert pair.a.drops() == {}


def test_a_super_packet_of_segments_that_fit_leaves() -> None:
    pair = with_super_packets()
    pair.a.send(super_packet(4, 1180))
    sizes = [len(datagram) - 32 for datagram in pair.a.take_sent()]
    assert len(sizes) == 6 and max(sizes) == 1220
    pair.a.engine.handle_command(SetFeatures(1, trains=True, udp_trains=True, aes=False, blocks=False), 0.0)
    pair.a.send(super_packet(4, 1180))
    sizes = [len(datagram) - 32 for datagram in pair.a.take_sent()]
    assert len(sizes) == 6 and max(sizes) == 1220


@pytest.mark.parametrize("trains", [False, True])
def test_segments_of_ipv6_keep_its_least_mtu(trains: bool) -> None:
    """A connection that knows no less than 1,280 bytes on a path that takes 1,220."""
    pair = with_super_packets()
    pair.a.engine.handle_command(SetFeatures(1, trains, trains, aes=False, blocks=False), 0.0)
    pair.a.send(super_packet(6, 1220))
    sizes = [len(datagram) - 32 for datagram in pair.a.take_sent()]
    assert len(sizes) == 6 and max(sizes) <= 1220
    assert pair.a.tun.received_by_host == []  # nothing to tell: it may not go below
