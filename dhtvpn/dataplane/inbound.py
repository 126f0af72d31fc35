"""Datagrams that arrive: socket -> peer by receiver index -> opened -> allowed IPs -> device.

Nothing a stranger sends gets past the index and the tag; nothing a peer sends gets past the addresses
that are its own and ours. Whatever fails is dropped and counted by reason.
"""

import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.messages import MAX_FRAME, ControlFrame, EndpointRoamed, Event
from dhtvpn.dataplane.peers import Peer, Peers
from dhtvpn.dataplane.sockets import RawAddress, stride_of
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.packet.ip import addresses
from dhtvpn.wireguard.transport import receiver_index

SOCKET_BATCH: Final = 8  # recvmsg calls per wake-up, ours: each may bring a run of 64 datagrams
FRAMES_PER_S: Final = (
    200.0  # control frames of one second from all peers, ours: they cost the control process
)
FRAMES_BURST: Final = 200

_BUFFER = 1 << 16
_ANCILLARY = 64  # bytes: one int and its header, and room for another


class Inbound:
    """The way in."""

    def __init__(self, *, device: Device, peers: Peers, drops: Drops, emit: Callable[[Event], None]) -> None:
        self._device = device
        self._peers = peers
        self._drops = drops
        self._emit = emit
        self._local: frozenset[bytes] = frozenset()
        self._view = memoryview(bytearray(_BUFFER))
        self._vector = [self._view]
        self._frame_tokens = float(FRAMES_BURST)
        self._frames_at = 0.0

    def set_local_addresses(self, local: Collection[IPv4Address | IPv6Address]) -> None:
        """Packets are delivered to these addresses only."""
        self._local = frozenset(address.packed for address in local)

    def from_socket(self, sock: socket.socket, now: float) -> None:
        """Receive up to SOCKET_BATCH times and handle what came."""
        view, receive, handle = self._view, sock.recvmsg_into, self.handle_datagram
        family = sock.family
        for _ in range(SOCKET_BATCH):
            try:
                size, ancillary, _, source = receive(self._vector, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:
                self._drops.count("dataplane", "udp_receive")  # an ICMP error for something that we sent
                continue
            stride = stride_of(ancillary, size) if ancillary else size
            if stride >= size:
                handle(bytes(view[:size]), family, source, now)
                continue
            for start in range(0, size, stride):
                handle(bytes(view[start : min(start + stride, size)]), family, source, now)

    def handle_datagram(self, datagram_untrusted: bytes, family: int, source: RawAddress, now: float) -> None:
        """One datagram as it came. Never raises on its bytes."""
        index = receiver_index(datagram_untrusted)
        if index is None:
            self._drops.count("dataplane", "not_data")
            return
        peer = self._peers.by_index.get(index)
        if peer is None:
            self._drops.count("dataplane", "unknown_index")
            return
        try:
            plaintext = peer.transport.open(datagram_untrusted, now)
        except DecodeError as error:
            self._drops.count("dataplane", error.reason)
            return
        if source != peer.address:
            if source[1] == 0:
                self._drops.count("dataplane", "source_port")  # nobody can be answered there
                return
            if peer.roam(family, source) and peer.endpoint is not None:
                self._emit(EndpointRoamed(peer.number, peer.endpoint))
        peer.rx_bytes += len(datagram_untrusted)
        if plaintext:
            peer.received = True
            self._deliver(peer, plaintext, source, now)
        else:
            peer.keepalive_received = True
        self._peers.active[peer.number] = peer
        if peer.watched:
            peer.watched = False
            self._emit(self._peers.take_activity(peer))

    def _deliver(self, peer: Peer, plaintext: bytes, source: RawAddress, now: float) -> None:
        """An authenticated plaintext: a packet for this machine, or a control frame."""
        if plaintext[0] >> 4 not in (4, 6):
            self._control_frame(peer, plaintext, source, now)
            return
        try:
            length, inner_source, inner_destination = addresses(plaintext)
        except DecodeError:
            self._drops.count("dataplane", "bad_packet_in")
            return
        if self._peers.allowed_ips.lookup(inner_source) != peer.number:
            self._drops.count("dataplane", "source_not_allowed")
            return
        if inner_destination not in self._local:
            self._drops.count("dataplane", "not_for_us")
            return
        try:
            self._device.writev((plaintext if length == len(plaintext) else plaintext[:length],))
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
        self._emit(ControlFrame(peer.number, plaintext, Endpoint.from_socket(source)))
