"""Datagrams that arrive: socket -> peer by receiver index -> opened -> delivered, sent on or told.

Nothing a stranger sends gets past the index and the tag. Whatever fails is dropped and counted by reason.
"""

import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag

from dhtvpn.dataplane.block_receiver import BlockReceiver
from dhtvpn.dataplane.block_sender import CHUNK_AT
from dhtvpn.dataplane.delivery import Delivery
from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.frame_gate import FrameGate
from dhtvpn.dataplane.messages import EndpointRoamed, Event, HeardElsewhere
from dhtvpn.dataplane.peers import Peer, Peers, Via
from dhtvpn.dataplane.relay_header import RelayHeader
from dhtvpn.dataplane.sockets import RawAddress, received, waiting_bytes
from dhtvpn.dataplane.standing_queue import StandingQueue
from dhtvpn.dataplane.train_receiver import TrainReceiver
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.frames import Blocks, encode
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
from dhtvpn.packet import ecn
from dhtvpn.packet.train import is_segment
from dhtvpn.wireguard.constants import TAG_SIZE, TYPE_BLOCK, TYPE_BLOCK_AES
from dhtvpn.wireguard.transport import HEADER, HEADER_SIZE, NONCE, OVERHEAD, Session, receiver_index

QUEUE_BYTES: Final = 1 << 20  # ours: what may wait in a socket all the time, 2 ms at 4 Gbit/s
SOCKET_BATCH: Final = 8  # recvmsg calls per wake-up, ours: each may bring a run of 64 datagrams
HEARD_ELSEWHERE_S: Final = 1.0
"""How often the control process is told of a peer that is heard by another path, ours."""

_BUFFER = 1 << 16
_ANCILLARY = 96  # bytes: two ints with their headers, and room for another
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
        self._queue = StandingQueue()
        self._delivery = Delivery(device=device, peers=peers, drops=drops, signal=self._queue.signal)
        self._frames = FrameGate(drops, emit)
        buffer = bytearray(_BUFFER)
        self._view = memoryview(buffer)
        self._vector = [self._view]
        self._trains = TrainReceiver(
            buffer, drops, self._delivery.super_packet, self._deliver, self._delivery.is_to_drop
        )
        self._blocks = BlockReceiver(self._view, drops)
        self._relay_header = RelayHeader(self._view)
        # of the message that is being handled
        self._peer: Peer
        self._source: RawAddress
        self._now = 0.0
        self._strayed = False

    def set_local_addresses(self, local: Collection[IPv4Address | IPv6Address]) -> None:
        """Packets are delivered to these addresses only."""
        self._delivery.set_local_addresses(local)

    def from_socket(self, sock: socket.socket, now: float) -> None:
        """Receive up to SOCKET_BATCH times and handle what came."""
        self._came(self._receive_batch(sock, now), now)
        self._delivery.flush()

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
        self._delivery.flush()

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
        self._peer, self._source, self._now = peer, place, now
        self._delivery.begin(peer, mark, now)
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
                self._delivery.mark = ecn.CE
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
        where = self._blocks.super_packet(length, self._delivery.is_to_drop)
        if where is None:
            self._drops.count("dataplane", "bad_segment")
        else:
            self._delivery.super_packet(self._blocks.buffer, *where)

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
        kind = plaintext[0] >> 4
        if kind == 0:
            self._frames.received(self._peer, plaintext, self._source, self._now)
        elif kind == HANDSHAKE_MARK >> 4:
            self._relay_frames(self._peer, [plaintext], self._now)
        else:
            self._delivery.packet(plaintext)

    def _relay_frames(self, peer: Peer, frames: list[bytes], now: float) -> None:
        """Datagrams that another member has given ``peer`` for us, or for somebody whom we reach."""
        try:
            onward = next_id(frames[0])
        except DecodeError as error:
            self._drops.count("dataplane", error.reason, len(frames))
            return
        if frames[0][0] == HANDSHAKE_MARK and onward is None and not self._nested:
            self._frames.received(peer, frames[0], self._source, now)
            return
        for run in runs_of(frames):
            self._relay_run(peer, run, run.octets + OVERHEAD * run.count, now)

    def _relay_run(self, peer: Peer, run: RelayRun, came: int, now: float) -> None:
        """Relay frames of ``peer`` that came in datagrams of ``came`` octets."""
        if self._nested:
            self._drops.count("dataplane", "relay_nested", run.count)
        elif run.onward is not None:
            self._forward(peer, run, came, self._delivery.mark, now)
        else:
            via = self._peers.via_of_carrier.get(peer.number)
            if via is None:
                self._drops.count("dataplane", "relay_unknown", run.count)
            else:
                self._inner.append((via, bytes(run.messages), run.stride, self._delivery.mark))
