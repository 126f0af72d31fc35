"""Segmentation in software: a super-packet from the device becomes the packets that a wire would see.

For peers that know no trains. What the kernel's own segmentation does: lengths, IPv4 identification, TCP
sequence number and flags, and complete checksums. The sums over what is equal in all packets are made once.
"""

from struct import Struct
from typing import Final

from dhtvpn.packet.ip import IPV6_HEADER
from dhtvpn.packet.transport import (
    CHECKSUM_OFFSET,
    CWR,
    FIN,
    PSH,
    SEQUENCE,
    TCP,
    WORD,
    Layout,
    ones_complement_sum,
    pseudo_header_sum,
)

_LENGTH_AND_ID: Final = Struct("!HH")
_IPV4_LENGTH, _IPV4_CHECKSUM, _IPV6_LENGTH, _TCP_SEQUENCE, _TCP_FLAGS, _UDP_LENGTH = 2, 10, 4, 4, 13, 4


def split(buffer: bytearray, at: int, shape: Layout, size: int, segment: int) -> list[bytes]:
    """The packets of the super-packet of ``size`` bytes at ``at``, ``segment`` payload bytes each."""
    view, start, end = memoryview(buffer), at + shape.length, at + size
    head = _Head(bytearray(view[at:start]), shape)
    packets = []
    for number, offset in enumerate(range(start, end, segment)):
        body = view[offset : min(offset + segment, end)]
        head.write(number, offset - start, body, last=offset + segment >= end)
        packets.append(bytes(head.data) + body)
    return packets


class _Head:
    """The headers of one packet after the other, in ``data``."""

    def __init__(self, data: bytearray, shape: Layout) -> None:
        self.data = data
        self._shape = shape
        self._start = start = shape.ip_length
        self._checksum_at = start + CHECKSUM_OFFSET[shape.protocol]
        data[self._checksum_at : self._checksum_at + 2] = b"\0\0"
        self._sequence = self._flags = 0
        if shape.protocol == TCP:
            self._sequence = SEQUENCE.unpack_from(data, start + _TCP_SEQUENCE)[0]
            self._flags = data[start + _TCP_FLAGS]
            data[start + _TCP_SEQUENCE : start + _TCP_SEQUENCE + 4] = bytes(4)
            data[start + _TCP_FLAGS] = 0
        else:
            data[start + _UDP_LENGTH : start + _UDP_LENGTH + 2] = b"\0\0"
        self._identification, self._ip_sum = 0, 0
        if shape.version == 4:
            self._identification = WORD.unpack_from(data, _IPV4_LENGTH + 2)[0]
            data[_IPV4_LENGTH : _IPV4_LENGTH + 4] = bytes(4)
            data[_IPV4_CHECKSUM : _IPV4_CHECKSUM + 2] = b"\0\0"
            self._ip_sum = ones_complement_sum(data[:start])
        pseudo = pseudo_header_sum(data, 0, shape.version, shape.protocol, 0)
        self._sum = pseudo + ones_complement_sum(data[start:])

    def write(self, number: int, done: int, body: memoryview, *, last: bool) -> None:
        """For packet ``number``, whose ``body`` follows ``done`` bytes of payload."""
        data, start = self.data, self._start
        size = self._shape.length + len(body)
        if self._shape.version == 4:
            identification = (self._identification + number) & 0xFFFF
            _LENGTH_AND_ID.pack_into(data, _IPV4_LENGTH, size, identification)
            WORD.pack_into(data, _IPV4_CHECKSUM, (self._ip_sum + size + identification) % 0xFFFF ^ 0xFFFF)
        else:
            WORD.pack_into(data, _IPV6_LENGTH, size - IPV6_HEADER)
        length = size - start
        total = self._sum + length + ones_complement_sum(body)
        if self._shape.protocol == TCP:
            sequence = (self._sequence + done) & 0xFFFFFFFF
            flags = self._flags if last else self._flags & ~(FIN | PSH)
            if number:
                flags &= ~CWR
            SEQUENCE.pack_into(data, start + _TCP_SEQUENCE, sequence)
            data[start + _TCP_FLAGS] = flags
            total += (sequence >> 16) + (sequence & 0xFFFF) + flags
        else:
            WORD.pack_into(data, start + _UDP_LENGTH, length)
            total += length
        WORD.pack_into(data, self._checksum_at, total % 0xFFFF ^ 0xFFFF)
