"""Datagrams that arrive: socket -> peer by receiver index -> opened -> allowed IPs -> device.

Nothing a stranger sends gets past the index and the tag; nothing a peer sends gets past the addresses
that are its own and ours. Whatever fails is dropped and counted by reason.
"""

import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag

from dhtvpn.dataplane.block_receiver import BlockReceiver
from dhtvpn.dataplane.block_sender import CHUNK_AT
from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.messages import MAX_FRAME, ControlFrame, EndpointRoamed, Event, HeardElsewhere
from dhtvpn.dataplane.peers import Peer, Peers, Via
from dhtvpn.dataplane.relay_header import RelayHeader
from dhtvpn.dataplane.sockets import RawAddress, received, waiting_bytes
from dhtvpn.dataplane.standing_queue import StandingQueue
from dhtvpn.dataplane.train_receiver import TrainReceiver
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.frames import KIND_BLOCKS, Blocks, decode, encode
from dhtvpn.mesh.relay_wire import (
    DATA_HEADER,
    DATA_MARK,
    DATA_PREFIX,
    HANDSHAKE_MARK,
    RelayRun,
    header_size,
    next_id,
    runs_of,
)
from dhtvpn.packet import ecn, virtio
from dhtvpn.packet.coalesce import Batch
from dhtvpn.packet.ip import addresses
from dhtvpn.packet.train import begun_header, is_partial, is_segment, unmarked
from dhtvpn.wireguard.constants import TAG_SIZE, TYPE_BLOCK, TYPE_BLOCK_AES
from dhtvpn.wireguard.transport import HEADER, HEADER_SIZE, NONCE, OVERHEAD, Session, receiver_index

QUEUE_BYTES: Final = 1 << 20  # ours: what may wait in a socket all the time, 2 ms at 4 Gbit/s
SOCKET_BATCH: Final = 8  # recvmsg calls per wake-up, ours: each may bring a run of 64 datagrams
FRAMES_PER_S: Final = (
    200.0  # control frames of one second from all peers, ours: they cost the control process
)
FRAMES_BURST: Final = 200
HEARD_ELSEWHERE_S: Final = 1.0
"""How often the control process is told of a peer that is heard by another path, ours."""

_BUFFER = 1 << 16
_ANCILLARY = 96  # bytes: two ints with their headers, and room for another
_AT: Final = virtio.SIZE
_BLOCKS: Final = frozenset((TYPE_BLOCK, TYPE_BLOCK_AES))
_BLOCKS_WANTED: Final = encode(Blocks(wanted=True))
_NO_BLOCKS: Final = encode(Blocks(wanted=False))


class _Origin(NamedTuple):
    """Where datagrams came from: a source address, which is a volunteer's where they came through one."""

    family: int
    source: RawAddress
    via: Via | None


class _Came(NamedTuple):
    """What stands in the buffer: what one recvmsg gave, or what somebody has relayed to us."""

    size: int
    stride: int
    """Bytes of each datagram; the last may be shorter."""
    origin: _Origin
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
        forward: Callable[[Peer, RelayRun, int, int, float], None],
        say: Callable[[Peer, bytes, float], None],
        came: Callable[[int, float], None],
    ) -> None:
        """``came`` is told how many octets a turn has brought, after ``forward`` of those that go there."""
        self._forward, self._came = forward, came
        self._inner: list[tuple[Via, bytes, int, int]] = []
        self._nested = False
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
        self._relay_header = RelayHeader(self._view)
        self._queue = StandingQueue()
        self._joined = Batch()
        self._frame_tokens = float(FRAMES_BURST)
        self._frames_at = 0.0
        # of the message that is being handled
        self._peer: Peer
        self._source: RawAddress
        self._ecn = 0
        self._now = 0.0
        self._strayed = False

    def set_local_addresses(self, local: Collection[IPv4Address | IPv6Address]) -> None:
        """Packets are delivered to these addresses only."""
        self._local = frozenset(address.packed for address in local)

    def from_socket(self, sock: socket.socket, now: float) -> None:
        """Receive up to SOCKET_BATCH times and handle what came."""
        self._came(self._receive_batch(sock, now), now)
        if self._joined:
            self._write_joined()

    def _receive_batch(self, sock: socket.socket, now: float) -> int:
        """Returns how many octets came."""
        view, receive, family, total = self._view, sock.recvmsg_into, sock.family, 0
        for _ in range(SOCKET_BATCH):
            try:
                size, ancillary, _, source = receive(self._vector, _ANCILLARY)
            except BlockingIOError:
                self._queue.turn_ended(True, now)
                return total
            except OSError:
                self._drops.count("dataplane", "udp_receive")  # an ICMP error for something that we sent
                continue
            if not size:
                self._drops.count("dataplane", "not_data")
                continue
            total += size
            stride, mark = received(ancillary, size)
            if view[0] == DATA_PREFIX:
                self._from_relay(size, stride, source, mark, now)
            else:
                self._open_run(size, stride, _Origin(family, source, None), mark, now)
        self._queue.turn_ended(waiting_bytes(sock) < QUEUE_BYTES, now)
        return total

    def _open_run(self, size: int, stride: int, origin: _Origin, mark: int, now: float) -> None:
        """The datagrams that stand in the first ``size`` bytes of the buffer, ``stride`` bytes each. What
        they carry of other sessions of ours comes after them."""
        self._open_all(size, stride, origin, mark, now)
        if self._inner:
            inner, self._inner = self._inner, []
            self._nested = True
            for via, messages, stride_of_it, inner_mark in inner:
                self._view[: len(messages)] = messages
                self._open_all(len(messages), stride_of_it, _Origin(0, ("", 0), via), inner_mark, now)
            self._nested = False

    def _open_all(self, size: int, stride: int, origin: _Origin, mark: int, now: float) -> None:
        view, start = self._view, 0
        opened: bytes | None = None
        while start < size:
            end = min(start + stride, size)
            if opened is None and view[start] in _BLOCKS:
                start = self._open_block(start, _Came(size, stride, origin, mark, now))
                continue
            first = opened or self._open(bytes(view[start:end]), origin, mark, now)
            opened = None
            if first is None:
                start = end
            elif is_segment(first):
                start = self._open_train(first, start, size, stride, now)
            else:
                start, opened = self._open_frames(first, start, size, stride, now)

    def _from_relay(self, size: int, stride: int, source: RawAddress, mark: int, now: float) -> None:
        """The same for datagrams that a volunteer has sent on: what is for us moves together."""
        via = self._peers.via_at.get((source[0], source[1]))
        if via is None:
            self._drops.count("dataplane", "relay_unknown")
            return
        data, others = self._relay_header.strip(size, stride, self._peers.own_headers)
        if others:
            self._drops.count("dataplane", "relay_not_for_us", others)
        if data:
            self._view[: len(data)] = data
            self._open_run(len(data), stride - DATA_HEADER, _Origin(0, source, via), mark, now)

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
        if datagram_untrusted[0] == DATA_PREFIX:
            self._from_relay(size, size, source, ecn.NOT_ECT, now)
        else:
            self._open_run(size, size, _Origin(family, source, None), ecn.NOT_ECT, now)
        if self._joined:
            self._write_joined()

    def _open(self, datagram_untrusted: bytes, origin: _Origin, mark: int, now: float) -> bytes | None:
        """Open one datagram, and deliver its plaintext unless it is a SEGMENT or a relayed data message,
        which are returned."""
        index = receiver_index(datagram_untrusted)
        if index is None:
            self._drops.count("dataplane", "not_data")
            return None
        peer = self._peers.by_index.get(index)
        if peer is None:
            self._drops.count("dataplane", "unknown_index")
            return None
        try:
            plaintext = peer.transport.open(datagram_untrusted, now)
        except DecodeError as error:
            self._drops.count("dataplane", error.reason)
            return None
        if not self._arrived(peer, len(datagram_untrusted), origin, mark, now):
            return None
        returned = None
        if plaintext:
            peer.received = True
            if is_segment(plaintext) or plaintext[0] & 0xF0 == DATA_MARK:
                returned = plaintext
            else:
                self._deliver(plaintext)
        else:
            peer.keepalive_received = True
        self._heard(peer)
        return returned

    def _arrived(self, peer: Peer, size: int, origin: _Origin, mark: int, now: float) -> bool:
        """``size`` bytes of ``peer`` that are authentic have come. False: they are to be dropped."""
        source = place = origin.source
        if origin.via is not None:
            # The way back through members is ours to choose: whichever of them it was, it is the path in use.
            source = place = origin.via.place_of(peer.number)
            member = origin.via.carrier is not None and peer.via is not None and peer.via.carrier is not None
            if member and peer.address:
                source = peer.address
        self._strayed = False
        if source != peer.address and not self._from_elsewhere(peer, origin, source, now):
            return False
        peer.rx_bytes += size
        if self._strayed:
            peer.strayed_bytes += size
        self._peers.active[peer.number] = peer
        self._peer, self._source, self._ecn, self._now = peer, place, mark, now
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
        if length and self._arrived(peer, end - start, came.origin, came.mark, came.now):
            if blocks.give_up_before(head.receiver, head.counter):
                self._block_lost(peer, came.now)
            if blocks.congested:
                self._ecn = ecn.CE
            self._deliver_block(peer, length, length + TAG_SIZE + head.chunks * CHUNK_AT)
        return end

    def _deliver_block(self, peer: Peer, length: int, came: int) -> None:
        """The block that was opened, ``length`` bytes of it, from datagrams of ``came`` octets."""
        peer.received = True
        self._heard(peer)
        try:
            relayed = self._blocks.relayed(length)
        except DecodeError as error:
            self._drops.count("dataplane", error.reason)
            return
        if relayed is not None:
            self._relay_run(peer, relayed, came, self._now)
            return
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

    def _from_elsewhere(self, peer: Peer, origin: _Origin, source: RawAddress, now: float) -> bool:
        """An authentic message of ``peer`` came from where we do not send to. False: it is to be dropped.

        From one address to another the peer roams. Between an address and a relay the control process
        chooses: a message that was late on the one does not lead away from the other.
        """
        if origin.via is None and (source[1] == 0 or source[0].startswith("100::")):
            self._drops.count("dataplane", "source_port")  # nobody can be answered there
            return False
        there = Endpoint.from_socket(source)
        if origin.via is None and there.is_link_local and not there.zone:
            self._drops.count("dataplane", "source_zone")  # on no link that we know
            return False
        if origin.via is None and peer.via is None:
            if peer.roam(origin.family, source) and peer.endpoint is not None:
                self._emit(EndpointRoamed(peer.number, peer.endpoint))
            return True
        if peer.address is None:
            self._peers.aim(peer, there)
            self._emit(EndpointRoamed(peer.number, there))
            return True
        self._strayed = True
        if peer.heard_elsewhere_at is None or now - peer.heard_elsewhere_at >= HEARD_ELSEWHERE_S:
            peer.heard_elsewhere_at = now
            self._emit(HeardElsewhere(peer.number, there))
        return True

    def _open_frames(
        self, first: bytes, start: int, size: int, stride: int, now: float
    ) -> tuple[int, bytes | None]:
        """The relayed data messages of one session from ``start`` on, of which ``first`` is opened already:
        those with its header go on together. Returns where the messages end that are dealt with, and the
        plaintext of the one there where that is opened already."""
        peer, view, batch, header = self._peer, self._view, [first], header_size(first)
        lead = first[: max(8, header)]
        prefix = bytes(view[start : start + 8])
        kind, index, _ = HEADER.unpack_from(prefix + bytes(8))
        session = peer.transport.receiving(index, now)
        at = min(start + stride, size)
        while session is not None and at + OVERHEAD <= size and view[at : at + 8] == prefix:
            end = min(at + stride, size)
            counter = HEADER.unpack_from(view, at)[2]
            try:
                plaintext = session.open[kind](NONCE.pack(counter), view[at + HEADER_SIZE : end], None)
            except InvalidTag:
                self._drops.count("dataplane", "data_tag")
            else:
                if not session.replay.accept(counter):
                    self._drops.count("dataplane", "data_replay")
                else:
                    peer.rx_bytes += end - at
                    if not (plaintext.startswith(lead) and header < len(plaintext) <= len(first)):
                        self._relay_frames(peer, batch, now)
                        return self._other(plaintext, at, end)
                    batch.append(plaintext)
            at = end
        self._relay_frames(peer, batch, now)
        if session is not None:
            self._no_block_came(peer, session, now)
        return at, None

    def _other(self, plaintext: bytes, at: int, end: int) -> tuple[int, bytes | None]:
        """An opened message behind relayed ones: what follows may belong to it, or it stands alone."""
        if plaintext and (is_segment(plaintext) or plaintext[0] & 0xF0 == DATA_MARK):
            return at, plaintext
        if plaintext:
            self._deliver(plaintext)
        return end, None

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
        if self._strayed:
            peer.strayed_bytes += stop - end
        self._no_block_came(peer, session, now)
        return stop

    def _no_block_came(self, peer: Peer, session: Session, now: float) -> None:
        """Messages that might have come as a block have not."""
        if peer.blocks and self._device.vnet_header and peer.loss.received(session.replay, now):
            self._say(peer, _BLOCKS_WANTED, now)

    def _deliver(self, plaintext: bytes) -> None:
        """An authenticated plaintext that is no piece of a train: a packet for this machine, or a frame."""
        kind, header = plaintext[0] >> 4, virtio.NONE
        if kind == 0:
            self._control_frame(self._peer, plaintext, self._source, self._now)
            return
        if kind == HANDSHAKE_MARK >> 4:
            self._relay_frames(self._peer, [plaintext], self._now)
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

    def _relay_frames(self, peer: Peer, frames: list[bytes], now: float) -> None:
        """Datagrams that another member has given ``peer`` for us, or for somebody whom we reach."""
        try:
            onward = next_id(frames[0])
        except DecodeError as error:
            self._drops.count("dataplane", error.reason, len(frames))
            return
        if frames[0][0] == HANDSHAKE_MARK and onward is None and not self._nested:
            self._control_frame(peer, frames[0], self._source, now)
            return
        for run in runs_of(frames):
            self._relay_run(peer, run, run.octets + OVERHEAD * run.count, now)

    def _relay_run(self, peer: Peer, run: RelayRun, came: int, now: float) -> None:
        """Relay frames of ``peer`` that came in datagrams of ``came`` octets."""
        if self._nested:
            self._drops.count("dataplane", "relay_nested", run.count)
        elif run.onward is not None:
            self._forward(peer, run, came, self._ecn, now)
        else:
            via = self._peers.via_of_carrier.get(peer.number)
            if via is None:
                self._drops.count("dataplane", "relay_unknown", run.count)
            else:
                self._inner.append((via, bytes(run.messages), run.stride, self._ecn))

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
