"""Packets that leave: device -> peer by allowed IPs -> sealed -> transmitter.

A super-packet leaves at once, as a train or cut into packets; the small packets of a batch are collected
first, so that what goes to one peer leaves together, in order. A packet that cannot go is answered by ICMP
where its sender can make use of that, and counted in any case.
"""

import errno
import os
import time
from collections.abc import Callable, Iterable
from typing import Final

from dhtvpn.dataplane.ack_thinning import AckThinning
from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.gathering import Gathering
from dhtvpn.dataplane.messages import Address, Event, NeedHandshake, ProbeRefused, WhoHolds
from dhtvpn.dataplane.peers import Peer, Peers, Waiting
from dhtvpn.dataplane.relay_turns import RelayTurns
from dhtvpn.dataplane.sockets import MAX_RUN_BYTES
from dhtvpn.dataplane.standing_queue import StandingQueue
from dhtvpn.dataplane.train_sender import TrainSender
from dhtvpn.dataplane.transmitter import Transmitter
from dhtvpn.dataplane.unresolved import Unresolved
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, SystemRefusedError
from dhtvpn.mesh.bucket import Bucket
from dhtvpn.mesh.relay_wire import ID_SIZE, one_step
from dhtvpn.packet import ecn, fragment, icmp, virtio
from dhtvpn.packet.ip import addresses
from dhtvpn.packet.segment import split
from dhtvpn.packet.train import PARTIAL
from dhtvpn.packet.transport import CHECKSUM_OFFSET, TCP, Layout, complete_checksum, layout, store_ip_length
from dhtvpn.wireguard.transport import OVERHEAD, Session

DEVICE_BATCH: Final = 64  # packets per wake-up, ours: one full run
DEVICE_BATCH_BYTES: Final = 3 << 17  # per wake-up, ours: six super-packets, about 0.4 ms
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
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``clock`` measures what relaying takes."""
        self._clock = clock
        self.turns = RelayTurns()
        self._device = device
        self._peers = peers
        self._transmitter = transmitter
        self._drops = drops
        self._emit = emit
        self.unresolved = Unresolved(lambda destination: emit(WhoHolds(destination)))
        self._answers = icmp.AnswerLimit()
        self._fragment_id = int.from_bytes(os.urandom(4))
        # Each has room for the padding of a last piece behind the longest packet.
        self._read = TrainSender(bytearray(_AT + PACKET_MAX + 16), _AT)
        self._gathered = TrainSender(bytearray(_AT + PACKET_MAX + 16), _AT)
        self._gathering = Gathering(self._gathered.buffer)
        self._skipped = 0 if device.vnet_header else _AT
        self._vector = [memoryview(self._read.buffer)[self._skipped : _AT + PACKET_MAX]]
        self._acks = AckThinning()
        self._collected: dict[Peer, list[tuple[int, list[bytes]]]] = {}
        self._forwarding: Bucket | None = None
        self._quiet = True
        self._queue = StandingQueue()

    def from_device(self, now: float) -> None:
        """Read a batch of packets and send them. Raises SystemRefusedError: the device is gone."""
        readv, vector, left, count = self._device.readv, self._vector, DEVICE_BATCH_BYTES, 0
        emptied = False
        gathering, acks, buffer, skipped = self._gathering, self._acks, self._read.buffer, self._skipped
        try:
            while left > 0 and count < DEVICE_BATCH:
                size = readv(vector)
                left -= size
                count += 1
                if gathering.count:
                    if gathering.add(buffer, size + skipped):
                        continue
                    self._send_gathered(now)
                if not gathering.begin(buffer, size + skipped):
                    superseded = acks.hold(buffer, size + skipped)
                    if superseded is None:
                        if acks:
                            self._route_copy(acks.release(buffer, size + skipped), now)
                        self._route(self._read, size + skipped, now)
                    elif superseded:
                        self._route_copy(superseded, now)
                if self._quiet:  # likely the only one: it does not wait for another look at the device
                    self._send_batch(now)
                    self._quiet = False
        except BlockingIOError:
            emptied = True
        except OSError as error:
            if error.errno in _GONE:
                raise SystemRefusedError("the network interface was removed by somebody else") from error
            self._drops.count("dataplane", "device_read")
        self._quiet = count <= 1
        self.turns.own(DEVICE_BATCH_BYTES - left, now)
        self._queue.turn_ended(emptied, now)
        self._send_batch(now)

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

    def send_to(self, peer: Peer, endpoint: Endpoint, plaintext: bytes, now: float) -> None:
        """:meth:`send_plaintext` by another path; lost where there is no keypair."""
        if not peer.transport.ready(now):
            self._drops.count("dataplane", "probe_unsent")
            return
        before = peer.endpoint, peer.family, peer.address, peer.via, peer.header, peer.source
        blocks_wanted = peer.blocks_wanted
        self._peers.aim(peer, endpoint)
        self.send_plaintext(peer, plaintext, now)
        peer.endpoint, peer.family, peer.address, peer.via, peer.header, peer.source = before
        peer.blocks_wanted = blocks_wanted  # said of the path in use, which has not changed

    def forward_at_most(self, octets_per_s: int, now: float) -> None:
        """Send on relay frames of members, so many octets a second; 0: none."""
        self._forwarding = Bucket(octets_per_s, now) if octets_per_s else None

    def forward(self, sender: Peer, frames: list[bytes], mark: int, now: float) -> None:
        """Send on relay frames that ``sender`` has sent us, all with the same header and none longer than the
        first: to a neighbour, inside our session with it."""
        octets = sum(map(len, frames))
        self.turns.own(-octets - OVERHEAD * len(frames), now)
        peer = self._peers.by_relay_id.get(frames[0][1:8])
        if self._forwarding is None:
            reason = "relay_unwilling"
        elif peer is None or peer is sender or (peer.via is not None and peer.via.carrier is not None):
            reason = "relay_no_neighbour"
        elif len(frames[0]) - ID_SIZE > peer.mtu:
            reason = "relay_too_big"  # so that a probe of the path MTU tells the truth
        elif not self.turns.allowed(octets, now):
            reason = "relay_own_first"
        elif not self._forwarding.take(octets, now):
            reason = "relay_rate"
        else:
            began = self._clock()
            left = self._transmitter.send_frames(peer, one_step(frames), mark)
            self.turns.worked(self._clock() - began)
            if left:
                self._peers.active[peer.number] = peer
                return
            reason = "relay_no_session"
        self._drops.count("dataplane", reason, len(frames))

    def send_probe(self, peer: Peer, plaintext: bytes, now: float) -> None:
        """Seal a probe as long as it is and send it unfragmented; lost where there is no keypair."""
        transport = peer.transport
        before, transport.mtu = transport.mtu, len(plaintext)  # no padding
        datagram = transport.seal(plaintext, now)
        transport.mtu = before
        if datagram is None:
            self._drops.count("dataplane", "probe_unsent")
        elif self._transmitter.send_unfragmented(peer, datagram):
            self._sent(peer)
        else:
            self._emit(ProbeRefused(peer.number, len(plaintext)))

    def flush_queue(self, peer: Peer, now: float) -> None:
        """Send what waited for a keypair, in order."""
        for waiting in self._peers.take_queue(peer, now):
            if waiting.is_packet:
                self._read.buffer[: len(waiting.data)] = waiting.data
                self._send(peer, self._read, len(waiting.data), now)
                continue
            datagram = peer.transport.seal(waiting.data, now)
            if datagram is None:
                self._wait_for_keypair(peer, waiting, now)
            else:
                self._collect(peer, ecn.NOT_ECT, datagram)
        self._send_collected()

    def holders_changed(self, now: float) -> None:
        """A peer has other addresses: send it what waited for one of them."""
        if len(self.unresolved):
            for packet in self.unresolved.take(self._peers.allowed_ips.lookup):
                self._route_copy(packet, now)
            self._send_collected()

    def no_member(self, destination: Address, now: float) -> None:
        """Nobody holds ``destination``: tell the senders."""
        self._unreachable(self.unresolved.refuse(destination, now), now)

    def give_up(self, now: float) -> None:
        """Tell the senders of what has waited too long."""
        self._unreachable(self.unresolved.expire(now), now)

    def _unreachable(self, packets: list[bytes], now: float) -> None:
        for packet in packets:
            self._drops.count("dataplane", "no_peer")
            self._answer(icmp.unreachable(packet[_AT:]), now)

    def _send_batch(self, now: float) -> None:
        """Send all that the batch has brought together."""
        self._send_gathered(now)
        if self._acks:
            for packet in self._acks.take():
                self._route_copy(packet, now)
        self._send_collected()

    def _route_copy(self, packet: bytes, now: float) -> None:
        """Send a packet that was held back, with its virtio header; b"": nothing. Nothing is gathered now."""
        if packet:
            self._gathered.buffer[: len(packet)] = packet
            self._route(self._gathered, len(packet), now)

    def _send_gathered(self, now: float) -> None:
        if self._gathering.count:
            self._gathering.finish()
            self._route(self._gathered, self._gathering.end, now)

    def _route(self, place: TrainSender, end: int, now: float) -> None:
        """Find the peer of the packet at ``place`` and send it there; ``end`` is where the packet ends."""
        packet = memoryview(place.buffer)[_AT:end]
        try:
            _, _, destination = addresses(packet)
        except DecodeError:
            self._drops.count("dataplane", "bad_packet_out")
            return
        number = self._peers.allowed_ips.lookup(destination)
        if number is not None:
            self._send(self._peers.by_number[number], place, end, now)
        elif icmp.is_one_host(destination):
            if self.unresolved.hold(bytes(destination), bytes(place.buffer[:end]), now):
                return
            self._drops.count("dataplane", "no_peer")
            self._answer(icmp.unreachable(bytes(packet)), now)
        else:
            self._drops.count("dataplane", "group_out")  # multicast: nobody to send it to yet

    def _send(self, peer: Peer, place: TrainSender, end: int, now: float) -> None:
        """Seal the packet at ``place``, behind its virtio header, for ``peer``."""
        buffer = place.buffer
        flags, kind, _, _, checksum_start, checksum_offset = virtio.HEADER.unpack_from(buffer)
        session = peer.transport.sending(now)
        if session is None:
            waiting = Waiting(bytes(buffer[:end]), now, is_packet=True)
            self._wait_for_keypair(peer, waiting, now)
            return
        if kind:
            self._send_super_packet(peer, session, place, end - _AT, now)
            return
        mark = ecn.bits_of(buffer, _AT)
        too_long = end - _AT > peer.mtu
        if flags & virtio.NEEDS_CHECKSUM:
            shape = layout(buffer, _AT, end - _AT) if peer.trains and not too_long else None
            if shape is not None and _begun_at(shape) == (checksum_start, checksum_offset):
                buffer[_AT] |= PARTIAL
            else:
                start = _AT + checksum_start
                if start + checksum_offset + 2 > end:
                    self._drops.count("dataplane", "bad_packet_out")
                    return
                complete_checksum(buffer, start, end, start + checksum_offset)
        if too_long:
            self._past_path_mtu(peer, session, [bytes(memoryview(buffer)[_AT:end])], mark, now)
            return
        datagram = peer.transport.seal_with(session, memoryview(buffer)[_AT:end])
        if datagram is not None:
            self._collect(peer, mark, datagram)

    def _send_super_packet(
        self, peer: Peer, session: Session, place: TrainSender, size: int, now: float
    ) -> None:
        """A train where the peer knows trains, packets cut in software otherwise."""
        buffer = place.buffer
        _, kind, _, segment, _, _ = virtio.HEADER.unpack_from(buffer)
        shape = layout(buffer, _AT, size) if kind & ~virtio.GSO_ECN in virtio.KNOWN_GSO else None
        if shape is None or not segment or size <= shape.length:
            self._drops.count("dataplane", "bad_packet_out")
            return
        mark = ecn.bits_of(buffer, _AT)
        if shape.length + segment > peer.mtu:
            if shape.protocol != TCP or peer.mtu <= shape.length:
                packets = split(buffer, _AT, shape, size, segment)
                self._past_path_mtu(peer, session, packets, mark, now)
                return
            segment = self._narrow(peer, buffer, shape, segment, now)
        known = peer.trains if shape.protocol == TCP else peer.udp_trains
        if not known or shape.length + segment + OVERHEAD > MAX_RUN_BYTES:
            for packet in split(buffer, _AT, shape, size, segment):
                datagram = peer.transport.seal_with(session, packet)
                if datagram is not None:
                    self._collect(peer, mark, datagram)
            return
        self._send_collected()  # what came before it leaves before it
        signal = self._queue.signal(now)
        if signal and mark:
            signal, mark = False, ecn.CE  # the other end carries it over to the packet
        as_block = peer.blocks_wanted and peer.via is None and not signal
        for run, stride in _runs(peer, session, place, (shape, size, segment), as_block=as_block):
            skipped = 0
            if signal and len(run) > stride:
                self._drops.count("dataplane", "standing_queue_out")
                signal, skipped = False, stride
            if self._transmitter.send_run(peer, run[skipped:], stride, mark):
                self._sent(peer)

    def _narrow(self, peer: Peer, buffer: bytearray, shape: Layout, segment: int, now: float) -> int:
        """The segment size for a TCP super-packet whose segments the path does not take. TCP does not care
        where its bytes are cut, so they go on at once, and its sender is told for the next time."""
        first = buffer[_AT : _AT + shape.length + segment]
        limit = max(peer.mtu, fragment.may_be(first))
        if len(first) > limit:
            store_ip_length(first, 0, shape, len(first))
            self._answer(icmp.too_big(bytes(first), limit), now)
        return peer.mtu - shape.length

    def _past_path_mtu(
        self, peer: Peer, session: Session, packets: list[bytes], mark: int, now: float
    ) -> None:
        """Answer packets that their peer's path does not take whole, the first of which is the longest. Those
        that must go all the same go in fragments of their own, so that the datagrams fit."""
        limit = max(peer.mtu, fragment.may_be(packets[0]))
        if len(packets[0]) > limit:
            self._drops.count("dataplane", "too_big", len(packets))
            self._answer(icmp.too_big(packets[0], limit), now)
            return
        for packet in packets:
            for piece in self._fragments(packet, peer.mtu):
                datagram = peer.transport.seal_with(session, piece)
                if datagram is not None:
                    self._collect(peer, mark, datagram)

    def _fragments(self, packet: bytes, mtu: int) -> list[bytes]:
        if len(packet) <= mtu:
            return [packet]
        self._fragment_id = self._fragment_id + 1 & 0xFFFFFFFF
        try:
            return fragment.split(packet, mtu, self._fragment_id)
        except DecodeError:
            return [packet]  # headers that cannot be cut: the datagram may be

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

    def _collect(self, peer: Peer, mark: int, datagram: bytes) -> None:
        """Keep a datagram with these ECN bits until the batch leaves, behind what came before it."""
        runs = self._collected.get(peer)
        if runs is None:
            self._collected[peer] = [(mark, [datagram])]
        elif runs[-1][0] == mark:
            runs[-1][1].append(datagram)
        else:
            runs.append((mark, [datagram]))

    def _send_collected(self) -> None:
        if self._collected:
            collected, self._collected = self._collected, {}
            for peer, runs in collected.items():
                for mark, datagrams in runs:
                    if self._transmitter.send(peer, datagrams, mark):
                        self._sent(peer)

    def _sent(self, peer: Peer) -> None:
        peer.sent = True
        self._peers.active[peer.number] = peer


def _runs(
    peer: Peer, session: Session, place: TrainSender, packet: tuple[Layout, int, int], *, as_block: bool
) -> Iterable[tuple[memoryview, int]]:
    """The datagrams of a super-packet: as a block, cut at what the path takes, where that is wanted and fits,
    as a train otherwise."""
    shape, size, segment = packet
    kind = peer.transport.message_type
    if as_block:
        stride = peer.mtu + OVERHEAD
        block = place.blocks.run(session, kind, size, segment, stride)
        if block is not None:
            return [(memoryview(block), stride)]
    return place.runs(session, kind, shape, size, segment)


def _begun_at(shape: Layout) -> tuple[int, int]:
    """Where the receiver of a PARTIAL has its checksum completed: from where on, and where it is stored."""
    return shape.ip_length, CHECKSUM_OFFSET[shape.protocol]
