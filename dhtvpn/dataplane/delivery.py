"""What a peer sent goes to the device: opened -> allowed IPs -> ECN -> device.

Nothing a peer sends gets past the addresses that are its own and ours. Whatever fails is dropped and counted.
"""

from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from dhtvpn.dataplane.device import Device
from dhtvpn.dataplane.peers import Peer, Peers
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.packet import ecn, virtio
from dhtvpn.packet.coalesce import Batch
from dhtvpn.packet.ip import addresses
from dhtvpn.packet.train import begun_header, is_partial, unmarked

_AT: Final = virtio.SIZE


class Delivery:
    """Packets of the peer at hand, which :meth:`begin` names; ``signal`` tells whether the queue that they
    came through stands still, so that one of them is to go."""

    def __init__(
        self, *, device: Device, peers: Peers, drops: Drops, signal: Callable[[float], bool]
    ) -> None:
        self._device, self._peers, self._drops, self._signal = device, peers, drops, signal
        self._local: frozenset[bytes] = frozenset()
        self._joined = Batch()
        self._peer: Peer
        self._now = 0.0
        self.mark = ecn.NOT_ECT
        """ECN bits of what carried the packets at hand."""

    def set_local_addresses(self, local: Collection[IPv4Address | IPv6Address]) -> None:
        """Packets are delivered to these addresses only."""
        self._local = frozenset(address.packed for address in local)

    def begin(self, peer: Peer, mark: int, now: float) -> None:
        """What follows is of ``peer``."""
        self._peer, self.mark, self._now = peer, mark, now

    def is_to_drop(self, buffer: bytes | bytearray, at: int) -> bool:
        """Whether a piece of the train at hand, whose headers are at ``at``, is to go, for the sake of the
        queue behind it. Where the sender knows ECN the train is marked instead."""
        if not self._signal(self._now):
            return False
        if ecn.bits_of(buffer, at):
            self.mark = ecn.CE
            return False
        self._drops.count("dataplane", "standing_queue_in")
        return True

    def packet(self, plaintext: bytes) -> None:
        """A packet that stands alone, perhaps with a begun checksum."""
        header = virtio.NONE
        if is_partial(plaintext):
            begun = begun_header(plaintext)
            if begun is None or not self._device.vnet_header:
                self._drops.count("dataplane", "bad_packet_in")
                return
            header, plaintext = begun, unmarked(plaintext)
        length = self._permitted(plaintext)
        if length is None:
            return
        if self.mark:
            marked = bytearray(plaintext)
            if not ecn.leave_tunnel(marked, 0, self.mark):
                self._drops.count("dataplane", "ecn")
                return
            plaintext = bytes(marked)
        packet = plaintext if length == len(plaintext) else plaintext[:length]
        if not self._peer.trains and self._device.vnet_header:
            if header is virtio.NONE and self._joined.offer(packet):
                return
            self.flush()  # what came before it goes before it
        self._write((header, packet) if self._device.vnet_header else (packet,))

    def super_packet(self, buffer: bytearray, start: int, end: int) -> None:
        """A super-packet in ``buffer``, with its virtio header."""
        if self._permitted(memoryview(buffer)[start + _AT : end]) is None:
            return
        if self.mark and not ecn.leave_tunnel(buffer, start + _AT, self.mark):
            self._drops.count("dataplane", "ecn")
            return
        if not self._peer.trains:  # it has not said so yet: packets of its may have come before
            self.flush()
        self._write((memoryview(buffer)[start:end],))

    def flush(self) -> None:
        """Hand over the super-packets that have been made of a batch."""
        if self._joined:
            for vector in self._joined.take():
                self._write(vector)

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

    def _write(self, vector: Sequence[bytes | bytearray | memoryview]) -> None:
        try:
            self._device.writev(vector)
        except OSError:
            self._drops.count("dataplane", "device_write")
