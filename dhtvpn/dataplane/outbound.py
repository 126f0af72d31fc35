"""Packets that leave: device -> peer by allowed IPs -> sealed -> one sendmsg per run of equal datagrams.

A batch is read whole before anything is sealed, so what goes to one peer leaves together, in order. A packet
that cannot go is answered by ICMP where its sender can make use of that, and counted in any case.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Final

from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.messages import Event, NeedHandshake, ProbeRefused
from dhtvpn.dataplane.peers import Peer, Peers
from dhtvpn.dataplane.sockets import (
    DEFER,
    MAX_RUN_BYTES,
    MAX_RUN_DATAGRAMS,
    NO_RUNS,
    TOO_LONG,
    segment_option,
)
from dhtvpn.dataplane.unfragmented import unfragmented
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError, SystemRefusedError
from dhtvpn.packet import fragment, icmp
from dhtvpn.packet.ip import addresses

log = logging.getLogger(__name__)

DEVICE_BATCH: Final = 64  # packets per wake-up, ours: one full run
PACKET_MAX: Final = 65536  # bytes: an IP packet, whatever MTU somebody gives the device

_GONE = frozenset((errno.EBADFD, errno.ENODEV, errno.EBADF))


class Outbound:
    """The way out. ``sockets`` are by address family; ``segments`` tells which of them can send runs."""

    def __init__(
        self,
        *,
        device: Device,
        peers: Peers,
        sockets: dict[int, socket.socket],
        segments: dict[int, bool],
        drops: Drops,
        emit: Callable[[Event], None],
    ) -> None:
        self._device = device
        self._peers = peers
        self._sockets = sockets
        self._segments = dict(segments)
        self._drops = drops
        self._emit = emit
        self._answers = icmp.AnswerLimit()
        self._fragment_id = int.from_bytes(os.urandom(4))
        self._slots = [memoryview(bytearray(PACKET_MAX)) for _ in range(DEVICE_BATCH)]
        self._vectors = [[slot] for slot in self._slots]

    def from_device(self, now: float) -> None:
        """Read up to DEVICE_BATCH packets and send them. Raises SystemRefusedError: the device is gone."""
        sizes = self._read_batch()
        waiting: dict[Peer, tuple[list[bytes], list[bytes]]] = {}
        lookup, by_number = self._peers.allowed_ips.lookup, self._peers.by_number
        for slot, size in zip(self._slots, sizes, strict=False):
            packet = bytes(slot[:size])
            try:
                _, _, destination = addresses(packet)
            except DecodeError:
                self._drops.count("dataplane", "bad_packet_out")
                continue
            number = lookup(destination)
            if number is None:
                self._no_peer(packet, destination, now)
                continue
            peer = by_number[number]
            if size > peer.mtu:
                self._past_path_mtu(peer, packet, now)
                continue
            datagram = peer.transport.seal(packet, now)
            if datagram is None:
                self._wait_for_keypair(peer, packet, now)
            elif peer in waiting:
                datagrams, packets = waiting[peer]
                datagrams.append(datagram)
                packets.append(packet)
            else:
                waiting[peer] = ([datagram], [packet])
        for peer, (datagrams, packets) in waiting.items():
            self._transmit(peer, datagrams, packets, now)

    def send_plaintext(self, peer: Peer, plaintext: bytes, now: float) -> None:
        """Seal and send a control frame, or a keepalive (empty); a frame waits where there is no keypair."""
        datagram = peer.transport.seal(plaintext, now)
        if datagram is not None:
            self._transmit(peer, [datagram], [plaintext], now)
        elif plaintext:
            self._wait_for_keypair(peer, plaintext, now)
        else:
            self._drops.count("dataplane", "keepalive_without_keypair")

    def send_probe(self, peer: Peer, plaintext: bytes, now: float) -> None:
        """Seal a probe as long as it is and send it unfragmented; lost where there is no keypair."""
        transport, sock = peer.transport, self._sockets.get(peer.family)
        before, transport.mtu = transport.mtu, len(plaintext)  # no padding
        datagram = transport.seal(plaintext, now)
        transport.mtu = before
        if datagram is None or sock is None or peer.address is None:
            self._drops.count("dataplane", "probe_unsent")
            return
        try:
            with unfragmented(sock):
                peer.tx_bytes += sock.sendmsg([datagram], [], 0, peer.address)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._emit(ProbeRefused(peer.number, len(plaintext)))
            else:
                self._drops.count("dataplane", "probe_unsent")
            return
        peer.sent = True
        self._peers.active[peer.number] = peer

    def _past_path_mtu(self, peer: Peer, packet: bytes, now: float) -> None:
        """Answer a packet that its peer's path does not take whole; one that must go all the same goes in
        fragments of its own, so that the datagrams fit."""
        limit = max(peer.mtu, fragment.may_be(packet))
        if len(packet) > limit:
            self._drops.count("dataplane", "too_big")
            self._answer(icmp.too_big(packet, limit), now)
            return
        self._fragment_id = self._fragment_id + 1 & 0xFFFFFFFF
        try:
            pieces = fragment.split(packet, peer.mtu, self._fragment_id)
        except DecodeError:
            pieces = [packet]
        for piece in pieces:
            datagram = peer.transport.seal(piece, now)
            if datagram is None:
                self._wait_for_keypair(peer, piece, now)
            else:
                self._transmit(peer, [datagram], [piece], now)

    def flush_queue(self, peer: Peer, now: float) -> None:
        """Send what waited for a keypair."""
        packets: list[bytes] = []
        datagrams: list[bytes] = []
        for plaintext in self._peers.take_queue(peer, now):
            datagram = peer.transport.seal(plaintext, now)
            if datagram is None:
                self._wait_for_keypair(peer, plaintext, now)
            else:
                datagrams.append(datagram)
                packets.append(plaintext)
        if datagrams:
            self._transmit(peer, datagrams, packets, now)

    def _read_batch(self) -> list[int]:
        readv, sizes = self._device.readv, []
        try:
            for vector in self._vectors:
                sizes.append(readv(vector))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in _GONE:
                raise SystemRefusedError("the network interface was removed by somebody else") from error
            self._drops.count("dataplane", "device_read")
        return sizes

    def _no_peer(self, packet: bytes, destination: bytes, now: float) -> None:
        if not icmp.is_one_host(destination):
            self._drops.count("dataplane", "group_out")  # multicast: nobody to send it to yet
            return
        self._drops.count("dataplane", "no_peer")
        self._answer(icmp.unreachable(packet), now)

    def _answer(self, answer: bytes | None, now: float) -> None:
        """Hand an ICMP answer to this machine."""
        if answer is None or not self._answers.allow(now):
            return
        try:
            self._device.writev([answer])
        except OSError:
            self._drops.count("dataplane", "device_write")

    def _wait_for_keypair(self, peer: Peer, plaintext: bytes, now: float) -> None:
        dropped = self._peers.enqueue(peer, plaintext, now)
        if dropped:
            self._drops.count("dataplane", "queue_full", dropped)
        if self._peers.handshake_wanted(peer, now):
            self._emit(NeedHandshake(peer.number))

    def _transmit(self, peer: Peer, datagrams: list[bytes], packets: list[bytes], now: float) -> None:
        """Send sealed ``datagrams`` to the peer's endpoint, in runs; ``packets`` is what they carry."""
        sock = self._sockets.get(peer.family)
        if peer.address is None or sock is None:
            self._drops.count("dataplane", "no_endpoint", len(datagrams))
            return
        start, count, tx_before = 0, len(datagrams), peer.tx_bytes
        while start < count:
            end = _run_end(datagrams, start) if self._segments[peer.family] else start + 1
            self._send_run(sock, peer, datagrams[start:end])
            start = end
        if peer.tx_bytes != tx_before:
            if any(packets):
                peer.sent = True
            else:
                peer.keepalive_sent = True
            self._peers.active[peer.number] = peer

    def _send_run(self, sock: socket.socket, peer: Peer, run: list[bytes]) -> None:
        """Send equal datagrams with one call; where the kernel does not do that, one by one. A datagram
        that is too long for the path leaves in fragments (docs/protocol/engine.md)."""
        option = segment_option(len(run[0])) if len(run) > 1 else []
        try:
            peer.tx_bytes += sock.sendmsg(run, option, 0, peer.address)
        except OSError as error:
            if error.errno in DEFER:
                self._drops.count("dataplane", "udp_busy", len(run))
            elif len(run) > 1 and error.errno in (TOO_LONG | NO_RUNS):
                if error.errno in NO_RUNS:
                    log.info("this kernel does not send runs of datagrams (%s): one by one", error.strerror)
                    self._segments[peer.family] = False
                for datagram in run:
                    self._send_run(sock, peer, [datagram])
            else:
                self._drops.count("dataplane", "udp_refused", len(run))


def _run_end(datagrams: list[bytes], start: int) -> int:
    """Where the run ends that begins at ``start``: equal lengths, and one shorter datagram at its end."""
    size, count = len(datagrams[start]), len(datagrams)
    limit = min(count, start + MAX_RUN_DATAGRAMS, start + max(1, MAX_RUN_BYTES // size))
    end = start + 1
    while end < limit and len(datagrams[end]) == size:
        end += 1
    if end < limit and len(datagrams[end]) < size:
        end += 1
    return end
