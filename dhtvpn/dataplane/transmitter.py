"""Sends sealed datagrams to a peer's endpoint: as runs, one call each, where the kernel cuts runs.

Peers are spread over the sockets of their family: what stands in a queue towards one fills the buffer of its
own socket only.

Sending never waits. What the socket does not take at once is dropped and counted: the queue of a tunnel
belongs to the programs that use it, and TCP finds out how fast it may send.
"""

import errno
import logging
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dhtvpn.dataplane.block_sender import BlockSealer
from dhtvpn.dataplane.peers import Peer, Via
from dhtvpn.dataplane.sockets import (
    DEFER,
    MAX_RUN_BYTES,
    MAX_RUN_DATAGRAMS,
    NO_RUNS,
    NOT_OURS,
    TOO_LONG,
    Ancillary,
    ecn_option,
    segment_option,
)
from dhtvpn.dataplane.unfragmented import unfragmented
from dhtvpn.drops import Drops
from dhtvpn.mesh.relay_wire import RelayRun
from dhtvpn.wireguard.transport import HEADER, HEADER_SIZE, NONCE, OVERHEAD, Session

log = logging.getLogger(__name__)

LEAST_RUN = 4  # frames, ours: fewer are not worth a buffer of their own


class Transmitter:
    """``segments`` tells the address families that can send runs (UDP_SEGMENT); ``peers`` those that may
    relay. ``now``, monotonic seconds, is set by whoever is about to send."""

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        segments: dict[int, bool],
        drops: Drops,
        peers: Mapping[int, Peer],
    ) -> None:
        self.now = 0.0
        self._run = bytearray(MAX_RUN_BYTES)
        self._view = memoryview(self._run)
        self._sealer = BlockSealer()
        self._peers = peers
        self._lanes: dict[int, list[socket.socket]] = {}
        for sock in sockets:
            self._lanes.setdefault(int(sock.family), []).append(sock)
        self._segments = dict(segments)
        self._drops = drops

    def send(self, peer: Peer, datagrams: Sequence[bytes | memoryview], ecn: int) -> bool:
        """Send ``datagrams`` in order, equal neighbours together. Whether any of them left."""
        if peer.via is not None and peer.via.carrier is not None:
            left = False
            for start, end in _runs(datagrams):
                run = RelayRun(peer.header, b"".join(datagrams[start:end]), len(datagrams[start]))
                left |= self._send_by_member(peer, peer.via.carrier, run, ecn)
            return left
        if peer.via is not None:
            header = peer.header
            datagrams = [b"".join((header, datagram)) for datagram in datagrams]
        before = peer.tx_bytes
        if self._segments.get(_outlet(peer).family):
            for start, end in _runs(datagrams):
                self._send_parts(peer, datagrams[start:end], len(datagrams[start]), ecn)
        else:
            for datagram in datagrams:
                self._send_parts(peer, [datagram], len(datagram), ecn)
        return peer.tx_bytes != before

    def send_run(self, peer: Peer, run: memoryview, stride: int, ecn: int) -> bool:
        """Send the datagrams in ``run``, each ``stride`` bytes long but the last, which may be shorter."""
        if peer.via is not None and peer.via.carrier is not None:
            return self._send_by_member(peer, peer.via.carrier, RelayRun(peer.header, run, stride), ecn)
        before = peer.tx_bytes
        if len(run) > stride and not self._segments.get(_outlet(peer).family):
            return self.send(peer, [run[at : at + stride] for at in range(0, len(run), stride)], ecn)
        if peer.via is None:
            self._send_parts(peer, [run], stride, ecn)
            return peer.tx_bytes != before
        whole = stride + len(peer.header)
        most = min(MAX_RUN_DATAGRAMS, MAX_RUN_BYTES // whole) * stride
        for start in range(0, len(run), most):
            part = _behind(peer.header, run[start : start + most], stride)
            self._send_parts(peer, [part], whole, ecn)
        return peer.tx_bytes != before

    def seal_frames(self, carrier: Peer, frames: Sequence[bytes]) -> list[bytes]:
        """Relay frames as data messages to ``carrier``, without padding: their length is the length of what
        they carry. Nothing where there is no keypair."""
        session = carrier.transport.sending(self.now)
        first = None if session is None else session.reserve(len(frames))
        if session is None or first is None:
            return []
        kind, index = carrier.transport.message_type, session.remote_index
        seal, pack, nonce = session.seal[kind], HEADER.pack, NONCE.pack
        return [
            pack(kind, index, counter) + seal(nonce(counter), frame, None)
            for counter, frame in enumerate(frames, first)
        ]

    def send_relayed(self, carrier: Peer, run: RelayRun, ecn: int) -> bool:
        """Seal relay frames and send them inside the session with ``carrier``: together where it wants
        blocks, one by one otherwise. Whether any of them left."""
        session = carrier.transport.sending(self.now)
        if session is None:
            return False
        before = carrier.tx_bytes
        if run.count < LEAST_RUN or not carrier.blocks_wanted:
            self._send_frames(carrier, session, run, ecn)
        else:
            self._send_block(carrier, session, run, ecn)
        if carrier.tx_bytes == before:
            return False
        carrier.sent = True
        return True

    def _send_block(self, carrier: Peer, session: Session, run: RelayRun, ecn: int) -> None:
        """What does not fit into one block goes in two."""
        stride, kind = carrier.mtu + OVERHEAD, carrier.transport.message_type
        block = self._sealer.seal(session, kind, run.plaintext(), stride)
        if block is not None:
            self.send_run(carrier, memoryview(block), stride, ecn)
        elif run.count > LEAST_RUN:
            for half in run.halves():
                self._send_block(carrier, session, half, ecn)
        else:
            self._send_frames(carrier, session, run, ecn)

    def _send_frames(self, carrier: Peer, session: Session, run: RelayRun, ecn: int) -> None:
        frames, whole = run.frames, len(run.header) + run.stride + OVERHEAD
        most = max(1, min(MAX_RUN_DATAGRAMS, MAX_RUN_BYTES // whole))
        together = carrier.via is None and self._segments.get(carrier.family)
        for start in range(0, len(frames), most):
            part = frames[start : start + most]
            if together and len(part) >= LEAST_RUN:
                self._send_sealed_run(carrier, session, part, ecn)
            else:
                self.send(carrier, self.seal_frames(carrier, part), ecn)

    def _send_sealed_run(self, carrier: Peer, session: Session, frames: Sequence[bytes], ecn: int) -> None:
        """Frames of one length, the last maybe shorter: sealed side by side, and sent with one call."""
        first = session.reserve(len(frames))
        if first is None:
            return
        kind, index, stride = carrier.transport.message_type, session.remote_index, len(frames[0]) + OVERHEAD
        seal, pack, nonce = session.seal_into[kind], HEADER.pack_into, NONCE.pack
        run, view, at, end = self._run, self._view, 0, 0
        for counter, frame in enumerate(frames, first):
            pack(run, at, kind, index, counter)
            end = at + len(frame) + OVERHEAD
            seal(nonce(counter), frame, None, view[at + HEADER_SIZE : end])
            at += stride
        self._send_parts(carrier, [view[:end]], stride, ecn)

    def _carrier(self, number: int) -> Peer | None:
        """The member that carries what is for others, unless it is behind a member itself."""
        carrier = self._peers.get(number)
        if carrier is None or (carrier.via is not None and carrier.via.carrier is not None):
            return None
        return carrier

    def _send_by_member(self, peer: Peer, number: int, run: RelayRun, ecn: int) -> bool:
        """Send ``run`` inside the session with the member that relays it."""
        carrier = self._carrier(number)
        if carrier is None or not carrier.transport.ready(self.now):
            self._drops.count("dataplane", "relay_no_session", run.count)
            return False
        before = carrier.tx_bytes
        left = self.send_relayed(carrier, run, ecn)
        peer.tx_bytes += carrier.tx_bytes - before
        return left

    def send_unfragmented(self, peer: Peer, datagram: bytes) -> bool:
        """Send one datagram that no link may fragment. False where our own link does not take it whole."""
        if peer.via is not None and peer.via.carrier is not None:
            carrier = self._carrier(peer.via.carrier)
            sealed = [] if carrier is None else self.seal_frames(carrier, [peer.header + datagram])
            if carrier is None or not sealed:
                self._drops.count("dataplane", "probe_unsent")
                return True
            peer.tx_bytes += len(sealed[0])
            return self.send_unfragmented(carrier, sealed[0])
        outlet, sock = _outlet(peer), self._lane(peer)
        if outlet.address is None or sock is None:
            self._drops.count("dataplane", "probe_unsent")
            return True
        parts = [datagram] if peer.via is None else [peer.header, datagram]
        try:
            with unfragmented(sock):
                peer.tx_bytes += sock.sendmsg(parts, _source(peer), 0, outlet.address)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return False
            self._drops.count("dataplane", "probe_unsent")
        return True

    def _send_parts(self, peer: Peer, parts: Sequence[bytes | memoryview], stride: int, ecn: int) -> None:
        """One call for datagrams of ``stride`` bytes; where the kernel does not take them so, one by one. A
        datagram that is too long for the path leaves in fragments (docs/protocol/engine.md)."""
        outlet, sock, size = _outlet(peer), self._lane(peer), sum(map(len, parts))
        count = -(-size // stride)
        if outlet.address is None or sock is None:
            self._drops.count("dataplane", "no_endpoint", count)
            return
        options = ecn_option(outlet.family, ecn) + _source(peer)
        if count > 1:
            options += segment_option(stride)
        try:
            peer.tx_bytes += sock.sendmsg(parts, options, 0, outlet.address)
        except OSError as error:
            if error.errno in DEFER:
                self._drops.count("dataplane", "udp_busy", count)
            elif _source(peer) and error.errno in NOT_OURS:
                peer.source = []
                self._send_parts(peer, parts, stride, ecn)
            elif count > 1 and error.errno in (TOO_LONG | NO_RUNS):
                if error.errno in NO_RUNS:
                    log.info("this kernel does not send runs of datagrams (%s): one by one", error.strerror)
                    self._segments[outlet.family] = False
                self._one_by_one(peer, parts, stride, ecn)
            else:
                self._drops.count("dataplane", "udp_refused", count)

    def _lane(self, peer: Peer) -> socket.socket | None:
        lanes = self._lanes.get(_outlet(peer).family)
        return lanes[peer.number % len(lanes)] if lanes else None

    def _one_by_one(self, peer: Peer, parts: Sequence[bytes | memoryview], stride: int, ecn: int) -> None:
        for part in parts:
            for start in range(0, len(part), stride):
                datagram = part[start : start + stride]
                self._send_parts(peer, [datagram], len(datagram), ecn)


def _source(peer: Peer) -> list[Ancillary]:
    """What makes datagrams leave from a certain address; a relay takes them from any."""
    return peer.source if peer.via is None else []


def _behind(header: bytes, run: memoryview, stride: int) -> bytes:
    """The datagrams in ``run``, ``stride`` bytes long but for the last, each behind ``header``."""
    parts: list[bytes | memoryview] = [header] * (2 * -(-len(run) // stride))
    parts[1::2] = [run[at : at + stride] for at in range(0, len(run), stride)]
    return b"".join(parts)


def _outlet(peer: Peer) -> Peer | Via:
    """Where its datagrams leave to: the relay on the way, or the peer itself."""
    return peer if peer.via is None else peer.via


def _runs(datagrams: Sequence[bytes | memoryview]) -> Iterator[tuple[int, int]]:
    """Where runs begin and end: equal lengths, and one shorter datagram at the end."""
    start, count = 0, len(datagrams)
    while start < count:
        size = len(datagrams[start])
        limit = min(count, start + MAX_RUN_DATAGRAMS, start + max(1, MAX_RUN_BYTES // size))
        end = start + 1
        while end < limit and len(datagrams[end]) == size:
            end += 1
        if end < limit and len(datagrams[end]) < size:
            end += 1
        yield start, end
        start = end
