"""Gathers UDP datagrams that a program sends one after the other into a train.

A device hands over UDP datagrams one by one, unless the program itself sends runs. Equal neighbours (one
flow, one length) differ in nothing but payload, IPv4 identification and checksum, so they can leave as the
pieces of one train, and the other side gets them with one write instead of one for each.

IPv4 identifications are lost on the way, so only datagrams that forbid fragmentation are gathered: for those
the field means nothing (RFC 6864 section 4.1).
"""

from typing import Final

from dhtvpn.packet import virtio
from dhtvpn.packet.transport import (
    CHECKSUM_OFFSET,
    UDP,
    UDP_HEADER,
    WORD,
    Layout,
    store_ip_length,
)

MAX_GATHERED: Final = 64  # datagrams, ours: what one turn of the device reads

_AT: Final = virtio.SIZE
_IPV4 = Layout(4, UDP, 20, 28)
_IPV6 = Layout(6, UDP, 40, 48)
_DONT_FRAGMENT: Final = b"\x40\x00"


class Gathering:
    """One train in the making, in ``buffer``: a virtio header, the headers of the first datagram, payloads.

    All datagrams in it go where the first one goes.
    """

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self._view = memoryview(buffer)
        self.shape = _IPV4
        self.count = 0
        self.segment = 0
        """Payload bytes of each datagram."""
        self.end = 0
        """Where the last payload ends."""
        self._equal: tuple[tuple[bytes, int], ...] = ()

    def begin(self, buffer: bytearray, end: int) -> bool:
        """Begin with the datagram in ``buffer``, behind its virtio header, if it is one that can be gathered.

        The train there was must be finished.
        """
        first = buffer[_AT]
        if first == 0x45 and buffer[_AT + 9] == UDP and buffer[_AT + 6 : _AT + 8] == _DONT_FRAGMENT:
            shape = _IPV4
        elif first >> 4 == 6 and buffer[_AT + 6] == UDP:
            shape = _IPV6
        else:
            return False
        start = _AT + shape.length
        if end <= start or buffer[0] != virtio.NEEDS_CHECKSUM or buffer[1]:
            return False
        transport = _AT + shape.ip_length
        if int.from_bytes(buffer[transport + 4 : transport + 6], "big") != end - transport:
            return False
        self.shape, self.segment, self.end, self.count = shape, end - start, end, 1
        self._view[:end] = buffer[:end]
        head = bytes(buffer[:start])
        # the virtio header and all of the headers but IPv4 identification and both checksums
        if shape is _IPV4:
            self._equal = (
                (head[: _AT + 4], 0),
                (head[_AT + 6 : _AT + 10], _AT + 6),
                (head[_AT + 12 : transport + 6], _AT + 12),
            )
        else:
            self._equal = ((head[: transport + 6], 0),)
        return True

    def add(self, buffer: bytearray, end: int) -> bool:
        """Take the datagram in ``buffer`` if it is the like of the first one."""
        start = _AT + self.shape.length
        if end - start != self.segment or self.count >= MAX_GATHERED:
            return False
        for part, at in self._equal:
            if not buffer.startswith(part, at):
                return False
        reached = self.end + self.segment
        if reached > len(self.buffer) - UDP_HEADER:
            return False
        self._view[self.end : reached] = buffer[start:end]
        self.end = reached
        self.count += 1
        return True

    def finish(self) -> None:
        """Make what has been gathered a super-packet, if it is more than one datagram."""
        if self.count > 1:
            transport = _AT + self.shape.ip_length
            store_ip_length(self.buffer, _AT, self.shape, self.end - _AT)
            WORD.pack_into(self.buffer, transport + 4, self.end - transport)  # the UDP length
            virtio.HEADER.pack_into(
                self.buffer,
                0,
                virtio.NEEDS_CHECKSUM,
                virtio.GSO_UDP_L4,
                self.shape.length,
                self.segment,
                self.shape.ip_length,
                CHECKSUM_OFFSET[UDP],
            )
        self.count = 0
