"""Packets that leave: device -> peer by allowed IPs -> sealed -> transmitter.

A super-packet leaves at once, as a train or cut into packets; the small packets of a batch are collected
first, so that what goes to one peer leaves together, in order. A packet that cannot go is answered by ICMP
where its sender can make use of that, and counted in any case.
"""

import errno
from collections.abc import Callable
from typing import Final

from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.messages import Event, NeedHandshake
from dhtvpn.dataplane.peers import Peer, Peers, Waiting
from dhtvpn.dataplane.sockets import MAX_RUN_BYTES
from dhtvpn.dataplane.train_sender import TrainSender
from dhtvpn.dataplane.transmitter import Transmitter
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError, SystemRefusedError
from dhtvpn.packet import ecn, icmp, virtio
from dhtvpn.packet.ip import addresses
from dhtvpn.packet.segment import split
from dhtvpn.packet.train import PARTIAL
from dhtvpn.packet.transport import complete_checksum, layout
from dhtvpn.wireguard.transport import OVERHEAD, Session

DEVICE_BATCH: Final = 64  # packets per wake-up, ours: one full run
DEVICE_BATCH_BYTES: Final = 1 << 18  # per wake-up, ours: four super-packets, about 0.3 ms
PACKET_MAX: Final = 65536  # bytes: an IP packet, whatever MTU somebody gives the device

_GONE = frozenset((errno.EBADFD, errno.ENODEV, errno.EBADF))
_AT: Final = virtio.SIZE  # where a packet starts in the buffer, behind its virtio header


class Outbound:
    """The way out."""

    def __init__(
        self,
        *,
        device: Device,
        peers: Peers,
        transmitter: Transmitter,
        drops: Drops,
        emit: Callable[[Event], None],
    ) -> None:
        self._device = device
        self._peers = peers
        self._transmitter = transmitter
        self._drops = drops
        self._emit = emit
        self._answers = icmp.AnswerLimit()
        self._buffer = bytearray(_AT + PACKET_MAX + 16)  # room for the padding of a last piece
        self._view = memoryview(self._buffer)
        self._vector = [self._view[0 if device.vnet_header else _AT : _AT + PACKET_MAX]]
        self._skipped = 0 if device.vnet_header else _AT
        self._trains = TrainSender(self._buffer, _AT)
        self._collected: dict[tuple[Peer, int], list[bytes]] = {}

    def from_device(self, now: float) -> None:
        """Read a batch of packets and send them. Raises SystemRefusedError: the device is gone."""
        readv, vector, left = self._device.readv, self._vector, DEVICE_BATCH_BYTES
        for _ in range(DEVICE_BATCH):
            try:
                size = readv(vector)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _GONE:
                    raise SystemRefusedError("the network interface was removed by somebody else") from error
                self._drops.count("dataplane", "device_read")
                break
            self._route(size + self._skipped, now)
            left -= size
            if left <= 0:
                break
        self._send_collected()

    def send_plaintext(self, peer: Peer, plaintext: bytes, now: float) -> None:
        """Seal and send a control frame, or a keepalive (empty); a frame waits where there is no keypair."""
        datagram = peer.transport.seal(plaintext, now)
        if datagram is not None:
            if self._transmitter.send(peer, [datagram], ecn.NOT_ECT):
                if plaintext:
                    peer.sent = True
                else:
                    peer.keepalive_sent = True
                self._peers.active[peer.number] = peer
        elif plaintext:
            self._wait_for_keypair(peer, Waiting(plaintext, now, is_packet=False), now)
        else:
            self._drops.count("dataplane", "keepalive_without_keypair")

    def flush_queue(self, peer: Peer, now: float) -> None:
        """Send what waited for a keypair, in order."""
        for waiting in self._peers.take_queue(peer, now):
            if waiting.is_packet:
                self._view[: len(waiting.data)] = waiting.data
                self._send(peer, len(waiting.data), now)
                continue
            datagram = peer.transport.seal(waiting.data, now)
            if datagram is None:
                self._wait_for_keypair(peer, waiting, now)
            else:
                self._collected.setdefault((peer, 0), []).append(datagram)
        self._send_collected()

    def _route(self, end: int, now: float) -> None:
        """Find the peer of the packet in the buffer and send it there; ``end`` is where the packet ends."""
        try:
            _, _, destination = addresses(self._view[_AT:end])
        except DecodeError:
            self._drops.count("dataplane", "bad_packet_out")
            return
        number = self._peers.allowed_ips.lookup(destination)
        if number is not None:
            self._send(self._peers.by_number[number], end, now)
        elif icmp.is_one_host(destination):
            self._drops.count("dataplane", "no_peer")
            self._answer(icmp.unreachable(bytes(self._view[_AT:end])), now)
        else:
            self._drops.count("dataplane", "group_out")  # multicast: nobody to send it to yet

    def _send(self, peer: Peer, end: int, now: float) -> None:
        """Seal the packet in the buffer, with its virtio header, for ``peer``."""
        buffer = self._buffer
        flags, kind, _, segment, checksum_start, checksum_offset = virtio.HEADER.unpack_from(buffer)
        session = peer.transport.sending(now)
        if session is None:
            waiting = Waiting(bytes(self._view[:end]), now, is_packet=True)
            self._wait_for_keypair(peer, waiting, now)
            return
        if kind:
            self._send_super_packet(peer, session, end - _AT, segment, now)
            return
        mark = ecn.bits_of(buffer, _AT)
        if flags & virtio.NEEDS_CHECKSUM:
            if peer.trains and layout(buffer, _AT, end - _AT) is not None:
                buffer[_AT] |= PARTIAL
            else:
                start = _AT + checksum_start
                if start + checksum_offset + 2 > end:
                    self._drops.count("dataplane", "bad_packet_out")
                    return
                complete_checksum(buffer, start, end, start + checksum_offset)
        datagram = peer.transport.seal(self._view[_AT:end], now)
        if datagram is not None:
            self._collected.setdefault((peer, mark), []).append(datagram)

    def _send_super_packet(self, peer: Peer, session: Session, size: int, segment: int, now: float) -> None:
        """A train where the peer knows trains, packets cut in software otherwise."""
        shape = layout(self._buffer, _AT, size)
        if shape is None or not segment or size <= shape.length:
            self._drops.count("dataplane", "bad_packet_out")
            return
        mark = ecn.bits_of(self._buffer, _AT)
        if not peer.trains or shape.length + segment + OVERHEAD > MAX_RUN_BYTES:
            for packet in split(self._buffer, _AT, shape, size, segment):
                datagram = peer.transport.seal(packet, now)
                if datagram is not None:
                    self._collected.setdefault((peer, mark), []).append(datagram)
            return
        self._send_collected()  # what came before it leaves before it
        kind = peer.transport.message_type
        for run, stride in self._trains.runs(session, kind, shape, size, segment):
            if self._transmitter.send_run(peer, run, stride, mark):
                self._sent(peer)

    def _answer(self, answer: bytes | None, now: float) -> None:
        """Hand an ICMP answer to this machine."""
        if answer is None or not self._answers.allow(now):
            return
        try:
            self._device.writev([virtio.NONE, answer] if self._device.vnet_header else [answer])
        except OSError:
            self._drops.count("dataplane", "device_write")

    def _wait_for_keypair(self, peer: Peer, waiting: Waiting, now: float) -> None:
        dropped = self._peers.enqueue(peer, waiting)
        if dropped:
            self._drops.count("dataplane", "queue_full", dropped)
        if self._peers.handshake_wanted(peer, now):
            self._emit(NeedHandshake(peer.number))

    def _send_collected(self) -> None:
        if self._collected:
            collected, self._collected = self._collected, {}
            for (peer, mark), datagrams in collected.items():
                if self._transmitter.send(peer, datagrams, mark):
                    self._sent(peer)

    def _sent(self, peer: Peer) -> None:
        peer.sent = True
        self._peers.active[peer.number] = peer
