"""Joins TCP segments that arrived one by one into super-packets, as a network card does (GRO).

For peers that know no trains. Only segments that a sender's own segmentation could have made are joined:
one flow, consecutive, in order, with equal headers, equal length but for the last, and a right checksum.
Everything else is left alone, so that nothing is hidden from the TCP behind it.
"""

from typing import Final

from dhtvpn.packet import virtio
from dhtvpn.packet.ip import IPV4_HEADER
from dhtvpn.packet.transport import (
    CHECKSUM_OFFSET,
    PSH,
    SEQUENCE,
    TCP,
    Layout,
    begin_checksum,
    layout,
    ones_complement_sum,
    pseudo_header_sum,
    store_ip_length,
)

MAX_FLOWS: Final = 16  # ours: flows that are being joined at one time, of one batch
MAX_SEGMENTS: Final = 256  # ours, of one super-packet: a vector of the device's holds 1,024 buffers (IOV_MAX)
MAX_PAYLOAD: Final = 65535 - 120  # bytes of a super-packet, less the longest IPv4 and TCP headers

_ACK: Final = 0x10
_TCP_SEQUENCE, _TCP_ACK, _TCP_FLAGS, _TCP_WINDOW, _TCP_CHECKSUM, _TCP_URGENT = 4, 8, 13, 14, 16, 18


class Batch:
    """Segments of one batch. :meth:`take` what has been joined before the batch ends."""

    def __init__(self) -> None:
        self._flows: dict[bytes, _Flow] = {}
        self._done: list[list[bytes | memoryview]] = []

    def __bool__(self) -> bool:
        return bool(self._flows or self._done)

    def offer(self, packet: bytes) -> bool:
        """Keep ``packet``, whose IP length is its own. False where it is not to be joined: whoever offers it
        delivers it, after what :meth:`take` gives."""
        size = len(packet)
        shape = layout(packet, 0, size)
        if shape is None or shape.protocol != TCP:
            return False
        key = _flow_key(packet, shape)
        flow = self._flows.get(key)
        plain = packet[shape.ip_length + _TCP_FLAGS] & ~PSH == _ACK and size > shape.length
        if not plain or not _intact(packet, shape):
            self._close(key)
            return False
        if flow is not None and flow.add(packet, shape):
            if flow.ended:
                self._close(key)
            return True
        self._close(key)
        if len(self._flows) >= MAX_FLOWS:
            return False
        self._flows[key] = _Flow(packet, shape)
        return True

    def take(self) -> list[list[bytes | memoryview]]:
        """Everything kept, as vectors for a device: a virtio header first, then a packet."""
        for key in list(self._flows):
            self._close(key)
        done, self._done = self._done, []
        return done

    def _close(self, key: bytes) -> None:
        flow = self._flows.pop(key, None)
        if flow is not None:
            self._done.append(flow.vector())


class _Flow:
    """Consecutive segments of one connection."""

    __slots__ = ("_bodies", "_first", "_next", "_payload", "_segment", "_shape", "_size", "ended")

    def __init__(self, packet: bytes, shape: Layout) -> None:
        self._first = packet
        self._shape = shape
        self._segment = len(packet) - shape.length
        self._payload = self._segment
        self._bodies: list[memoryview] = []
        sequence: int = SEQUENCE.unpack_from(packet, shape.ip_length + _TCP_SEQUENCE)[0]
        self._next = (sequence + self._segment) & 0xFFFFFFFF
        self.ended = False

    def add(self, packet: bytes, shape: Layout) -> bool:
        """Take ``packet`` if it is the next segment."""
        first, start = self._first, shape.ip_length
        size = len(packet) - shape.length
        if (
            shape != self._shape
            or SEQUENCE.unpack_from(packet, start + _TCP_SEQUENCE)[0] != self._next
            or size > self._segment
            or self._payload + size > MAX_PAYLOAD
            or first[start + _TCP_FLAGS] & PSH
            or len(self._bodies) + 1 >= MAX_SEGMENTS
            or not _same_tcp_header(packet, first, shape)
            or not _same_ip_header(packet, first, shape)
        ):
            return False
        self._bodies.append(memoryview(packet)[shape.length :])
        self._payload += size
        self._next = (self._next + size) & 0xFFFFFFFF
        self.ended = size < self._segment or bool(packet[start + _TCP_FLAGS] & PSH)
        if packet[start + _TCP_FLAGS] & PSH:
            self._first = bytes(_with_push(first, start))
        return True

    def vector(self) -> list[bytes | memoryview]:
        if not self._bodies:
            return [virtio.NONE, self._first]
        shape, head = self._shape, bytearray(self._first)
        size = shape.length + self._payload
        store_ip_length(head, 0, shape, size)
        begin_checksum(head, 0, shape, size)
        kind = virtio.GSO_TCPV4 if shape.version == 4 else virtio.GSO_TCPV6
        header = virtio.HEADER.pack(
            virtio.NEEDS_CHECKSUM, kind, shape.length, self._segment, shape.ip_length, CHECKSUM_OFFSET[TCP]
        )
        return [header, bytes(head), *self._bodies]


def _flow_key(packet: bytes, shape: Layout) -> bytes:
    """Addresses and ports."""
    addresses = 12 if shape.version == 4 else 8
    return (
        packet[addresses : addresses + (8 if shape.version == 4 else 32)]
        + packet[shape.ip_length : shape.ip_length + 4]
    )


def _same_ip_header(packet: bytes, first: bytes, shape: Layout) -> bool:
    """Whether all is equal but length, identification and checksum."""
    if shape.version == 6:
        return packet[:4] == first[:4] and packet[7] == first[7]
    options = slice(IPV4_HEADER, shape.ip_length)
    return packet[:2] == first[:2] and packet[6:9] == first[6:9] and packet[options] == first[options]


def _same_tcp_header(packet: bytes, first: bytes, shape: Layout) -> bool:
    """Whether all is equal but sequence number, flags and checksum: acknowledgement, length and reserved
    bits, window, urgent pointer, options."""
    start = shape.ip_length
    acknowledgement = slice(start + _TCP_ACK, start + _TCP_FLAGS)
    window = slice(start + _TCP_WINDOW, start + _TCP_CHECKSUM)
    options = slice(start + _TCP_URGENT, shape.length)
    return (
        packet[acknowledgement] == first[acknowledgement]
        and packet[window] == first[window]
        and packet[options] == first[options]
    )


def _intact(packet: bytes, shape: Layout) -> bool:
    """Whether the checksums are right: TCP's, and that of the IPv4 header."""
    if shape.version == 4 and ones_complement_sum(packet[: shape.ip_length]):
        return False
    total = pseudo_header_sum(packet, 0, shape.version, TCP, len(packet) - shape.ip_length)
    return (total + ones_complement_sum(memoryview(packet)[shape.ip_length :])) % 0xFFFF == 0


def _with_push(packet: bytes, start: int) -> bytearray:
    pushed = bytearray(packet)
    pushed[start + _TCP_FLAGS] |= PSH
    return pushed
