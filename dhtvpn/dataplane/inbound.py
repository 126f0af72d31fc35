"""Datagrams that arrive: socket -> peer by receiver index -> opened -> allowed IPs -> device.

Nothing a stranger sends gets past the index and the tag; nothing a peer sends gets past the addresses
that are its own and ours. Whatever fails is dropped and counted by reason.
"""

import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from dhtvpn.dataplane.block_receiver import BlockReceiver
from dhtvpn.dataplane.block_sender import CHUNK_AT
from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.messages import MAX_FRAME, ControlFrame, EndpointRoamed, Event
from dhtvpn.dataplane.peers import Peer, Peers
from dhtvpn.dataplane.sockets import RawAddress, received, waiting_bytes
from dhtvpn.dataplane.standing_queue import StandingQueue
from dhtvpn.dataplane.train_receiver import TrainReceiver
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.frames import KIND_BLOCKS, Blocks, decode, encode
from dhtvpn.packet import ecn, virtio
from dhtvpn.packet.coalesce import Batch
from dhtvpn.packet.ip import addresses
from dhtvpn.packet.train import begun_header, is_partial, is_segment, unmarked
from dhtvpn.wireguard.constants import TYPE_BLOCK, TYPE_BLOCK_AES
from dhtvpn.wireguard.transport import receiver_index

QUEUE_BYTES: Final = 1 << 20  # ours: what may wait in a socket all the time, 2 ms at 4 Gbit/s
SOCKET_BATCH: Final = 8  # recvmsg calls per wake-up, ours: each may bring a run of 64 datagrams
FRAMES_PER_S: Final = (
    200.0  # control frames of one second from all peers, ours: they cost the control process
)
FRAMES_BURST: Final = 200

_BUFFER = 1 << 16
_ANCILLARY = 96  # bytes: two ints with their headers, and room for another
_AT: Final = virtio.SIZE
_BLOCKS: Final = frozenset((TYPE_BLOCK, TYPE_BLOCK_AES))
_BLOCKS_WANTED: Final = encode(Blocks(wanted=True))
_NO_BLOCKS: Final = encode(Blocks(wanted=False))


class _Came(NamedTuple):
    """What one recvmsg gave."""

    size: int
    stride: int
    """Bytes of each datagram; the last may be shorter."""
    family: int
    source: RawAddress
    mark: int
    """ECN bits."""
    now: float


class Inbound:
    """The way in."""

    def __init__(
        self,
        *,
        device: Device,
        peers: Peers,
        drops: Drops,
        emit: Callable[[Event], None],
        say: Callable[[Peer, bytes, float], None],
    ) -> None:
        self._device = device
        self._peers = peers
        self._drops = drops
        self._emit = emit
        self._say = say
        self._local: frozenset[bytes] = frozenset()
        buffer = bytearray(_BUFFER)
        self._view = memoryview(buffer)
        self._vector = [self._view]
        self._trains = TrainReceiver(
            buffer, drops, self._deliver_super_packet, self._deliver, self._is_to_drop
        )
        self._blocks = BlockReceiver(self._view, drops)
        self._queue = StandingQueue()
        self._joined = Batch()
        self._frame_tokens = float(FRAMES_BURST)
        self._frames_at = 0.0
        # of the message that is being handled
        self._peer: Peer
        self._source: RawAddress
        self._ecn = 0
        self._now = 0.0

    def set_local_addresses(self, local: Collection[IPv4Address | IPv6Address]) -> None:
        """Packets are delivered to these addresses only."""
        self._local = frozenset(address.packed for address in local)

    def from_socket(self, sock: socket.socket, now: float) -> None:
        """Receive up to SOCKET_BATCH times and handle what came."""
        self._receive_batch(sock, now)
        if self._joined:
            self._write_joined()

    def _receive_batch(self, sock: socket.socket, now: float) -> None:
        view, receive, family = self._view, sock.recvmsg_into, sock.family
        for _ in range(SOCKET_BATCH):
            try:
                size, ancillary, _, source = receive(self._vector, _ANCILLARY)
            except BlockingIOError:
                self._queue.turn_ended(True, now)
                return
            except OSError:
                self._drops.count("dataplane", "udp_receive")  # an ICMP error for something that we sent
                continue
            if not size:
                self._drops.count("dataplane", "not_data")
                continue
            stride, mark = received(ancillary, size)
            came, start = _Came(size, stride, family, source, mark, now), 0
            while start < size:
                end = min(start + stride, size)
                if view[start] in _BLOCKS:
                    start = self._open_block(start, came)
                    continue
                first = self._open(bytes(view[start:end]), came)
                if first is None or not is_segment(first):
                    start = end
                    continue
                start = self._open_train(first, start, size, stride, now)
        self._queue.turn_ended(waiting_bytes(sock) < QUEUE_BYTES, now)

    def _is_to_drop(self, buffer: bytes | bytearray, at: int) -> bool:
        """Whether a piece of the train at hand, whose headers are at ``at``, is to go, for the sake of the
        queue behind it. Where the sender knows ECN the train is marked instead."""
        if not self._queue.signal(self._now):
            return False
        if ecn.bits_of(buffer, at):
            self._ecn = ecn.CE
            return False
        self._drops.count("dataplane", "standing_queue_in")
        return True

    def handle_datagram(self, datagram_untrusted: bytes, family: int, source: RawAddress, now: float) -> None:
        """One datagram as it came. Never raises on its bytes."""
        size = len(datagram_untrusted)
        if not 0 < size <= len(self._view):
            self._drops.count("dataplane", "not_data")
            return
        self._view[:size] = datagram_untrusted
        came = _Came(size, size, family, source, ecn.NOT_ECT, now)
        if datagram_untrusted[0] in _BLOCKS:
            self._open_block(0, came)
            return
        plaintext = self._open(datagram_untrusted, came)
        if self._joined:
            self._write_joined()
        if plaintext is not None and is_segment(plaintext):
            self._open_train(plaintext, 0, size, size, now)

    def _open(self, datagram_untrusted: bytes, came: _Came) -> bytes | None:
        """Open one datagram, and deliver its plaintext unless it is a SEGMENT, which is returned."""
        index = receiver_index(datagram_untrusted)
        if index is None:
            self._drops.count("dataplane", "not_data")
            return None
        peer = self._peers.by_index.get(index)
        if peer is None:
            self._drops.count("dataplane", "unknown_index")
            return None
        try:
            plaintext = peer.transport.open(datagram_untrusted, came.now)
        except DecodeError as error:
            self._drops.count("dataplane", error.reason)
            return None
        if not self._arrived(peer, len(datagram_untrusted), came):
            return None
        if plaintext:
            peer.received = True
            if not is_segment(plaintext):
                self._deliver(plaintext)
        else:
            peer.keepalive_received = True
        self._heard(peer)
        return plaintext or None

    def _arrived(self, peer: Peer, size: int, came: _Came) -> bool:
        """``size`` bytes of ``peer`` that are authentic have come. False where nobody can be answered."""
        if came.source != peer.address:
            if came.source[1] == 0:
                self._drops.count("dataplane", "source_port")
                return False
            if peer.roam(came.family, came.source) and peer.endpoint is not None:
                self._emit(EndpointRoamed(peer.number, peer.endpoint))
        peer.rx_bytes += size
        self._peers.active[peer.number] = peer
        self._peer, self._source, self._ecn, self._now = peer, came.source, came.mark, came.now
        return True

    def _open_block(self, start: int, came: _Came) -> int:
        """The block, or the chunk of one, that begins at ``start``. Returns where what it took ends."""
        blocks, end = self._blocks, min(start + came.stride, came.size)
        head = blocks.head(start, end)
        peer = self._peers.by_index.get(head.receiver) if head is not None else None
        if head is None or peer is None:
            self._drops.count("dataplane", "not_data" if head is None else "unknown_index")
            return end
        session = peer.transport.receiving(head.receiver, came.now)
        if session is None or not (peer.blocks and self._device.vnet_header):
            self._drops.count("dataplane", "block_unwanted")  # we have not said that we take them
            return end
        if session.replay.refuses(head.counter):  # it came before, so nothing is lost
            self._drops.count("dataplane", "data_replay")
            return end
        try:
            length = blocks.open_run(session, head, start, came.size, came.stride)
            if length:
                end = min(start + head.chunks * came.stride, came.size)
            else:
                chunk = bytes(self._view[start + CHUNK_AT : end])
                length = blocks.add(session, head, chunk, congested=came.mark == ecn.CE)
            if length:
                peer.transport.accept(session, head.counter)
        except DecodeError as error:
            self._drops.count("dataplane", error.reason)
            self._block_lost(peer, came.now)
            return end
        if length and self._arrived(peer, end - start, came):
            if blocks.give_up_before(head.receiver, head.counter):
                self._block_lost(peer, came.now)
            if blocks.congested:
                self._ecn = ecn.CE
            self._deliver_block(peer, length)
        return end

    def _deliver_block(self, peer: Peer, length: int) -> None:
        """The block that was opened, ``length`` bytes of it."""
        peer.received = True
        self._heard(peer)
        where = self._blocks.super_packet(length, self._is_to_drop)
        if where is None:
            self._drops.count("dataplane", "bad_segment")
        else:
            self._deliver_super_packet(self._blocks.buffer, *where)

    def _heard(self, peer: Peer) -> None:
        """Tell the control process of the first message with a new keypair at once."""
        if peer.watched:
            peer.watched = False
            self._emit(self._peers.take_activity(peer))

    def _block_lost(self, peer: Peer, now: float) -> None:
        if peer.loss.lost(now):
            self._say(peer, _NO_BLOCKS, now)

    def _open_train(self, first: bytes, start: int, size: int, stride: int, now: float) -> int:
        """The run that ``first`` begins, of the peer that :meth:`_open` has found. Returns where it ends."""
        peer, end = self._peer, min(start + stride, size)
        index = receiver_index(self._view[start:end])
        session = peer.transport.receiving(index, now) if index is not None else None
        if session is None or not self._device.vnet_header:
            self._drops.count("dataplane", "train_unwanted")  # we have not said that we take them
            return end
        stop = self._trains.open_run(session, first, start, size, end - start)
        peer.rx_bytes += stop - end
        if peer.blocks and peer.loss.received(session.replay, now):
            self._say(peer, _BLOCKS_WANTED, now)
        return stop

    def _deliver(self, plaintext: bytes) -> None:
        """An authenticated plaintext that is no piece of a train: a packet for this machine, or a frame."""
        kind, header = plaintext[0] >> 4, virtio.NONE
        if kind == 0:
            self._control_frame(self._peer, plaintext, self._source, self._now)
            return
        if is_partial(plaintext):
            begun = begun_header(plaintext)
            if begun is None or not self._device.vnet_header:
                self._drops.count("dataplane", "bad_packet_in")
                return
            header, plaintext = begun, unmarked(plaintext)
        length = self._permitted(plaintext)
        if length is None:
            return
        if self._ecn:
            marked = bytearray(plaintext)
            if not ecn.leave_tunnel(marked, 0, self._ecn):
                self._drops.count("dataplane", "ecn")
                return
            plaintext = bytes(marked)
        packet = plaintext if length == len(plaintext) else plaintext[:length]
        if not self._peer.trains and self._device.vnet_header:
            if header is virtio.NONE and self._joined.offer(packet):
                return
            self._write_joined()  # what came before it goes before it
        self._write(header, packet)

    def _write_joined(self) -> None:
        """Hand over the super-packets that have been made of a batch."""
        for vector in self._joined.take():
            try:
                self._device.writev(vector)
            except OSError:
                self._drops.count("dataplane", "device_write")

    def _deliver_super_packet(self, buffer: bytearray, start: int, end: int) -> None:
        """A super-packet in ``buffer``, with its virtio header."""
        if self._permitted(memoryview(buffer)[start + _AT : end]) is None:
            return
        if self._ecn and not ecn.leave_tunnel(buffer, start + _AT, self._ecn):
            self._drops.count("dataplane", "ecn")
            return
        if not self._peer.trains:  # it has not said so yet: packets of its may have come before
            self._write_joined()
        try:
            self._device.writev((memoryview(buffer)[start:end],))
        except OSError:
            self._drops.count("dataplane", "device_write")

    def _permitted(self, packet: bytes | memoryview) -> int | None:
        """The length of a packet that this peer may send to this machine; None for any other."""
        try:
            length, inner_source, inner_destination = addresses(packet)
        except DecodeError:
            self._drops.count("dataplane", "bad_packet_in")
            return None
        if self._peers.allowed_ips.lookup(inner_source) != self._peer.number:
            self._drops.count("dataplane", "source_not_allowed")
            return None
        if inner_destination not in self._local:
            self._drops.count("dataplane", "not_for_us")
            return None
        return length

    def _write(self, header: bytes, packet: bytes) -> None:
        try:
            self._device.writev((header, packet) if self._device.vnet_header else (packet,))
        except OSError:
            self._drops.count("dataplane", "device_write")

    def _control_frame(self, peer: Peer, plaintext: bytes, source: RawAddress, now: float) -> None:
        if len(plaintext) > MAX_FRAME:
            self._drops.count("dataplane", "frame_size")
            return
        elapsed = max(0.0, now - self._frames_at)
        self._frames_at = now
        self._frame_tokens = min(float(FRAMES_BURST), self._frame_tokens + elapsed * FRAMES_PER_S)
        if self._frame_tokens < 1.0:
            self._drops.count("dataplane", "frame_rate")
            return
        self._frame_tokens -= 1.0
        if plaintext[0] == KIND_BLOCKS:
            self._blocks_frame(peer, plaintext)
            return
        self._emit(ControlFrame(peer.number, plaintext, Endpoint.from_socket(source)))

    def _blocks_frame(self, peer: Peer, plaintext: bytes) -> None:
        """The peer says whether it wants blocks: the engines settle that, in a round trip."""
        try:
            frame = decode(plaintext)
        except DecodeError as error:
            self._drops.count("dataplane", error.reason)
            return
        peer.blocks_wanted = peer.blocks and isinstance(frame, Blocks) and frame.wanted
