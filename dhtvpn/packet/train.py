"""Trains: a TCP or UDP super-packet cut into data messages that share one header (docs/protocol/trains.md).

The device hands over up to 64 KB of payload behind one set of headers. Each piece of segment size leaves as
a plaintext of its own: the headers, the same in every piece, and the piece. The first byte of the plaintext
is the IP version with a mark:

    high nibble  what follows
    4, 6         a packet
    0xC, 0xE     SEGMENT of IPv4, IPv6: one piece, but not the last, behind the super-packet's headers, whose
                 transport checksum field holds the low 16 bits of the counter of the train's first message
    0xD, 0xF     PARTIAL of IPv4, IPv6: a packet whose transport checksum is only begun; the last piece of a
                 train is one, with headers that are right for it

The difference between a message's counter and the train's first one is the piece's place. The receiver puts
consecutive pieces under one header again and hands the device a super-packet; only where a piece is missing
are sequence number and flags written anew.
"""

from typing import Final

from dhtvpn.packet import virtio
from dhtvpn.packet.ip import IPV4_HEADER, IPV6_HEADER
from dhtvpn.packet.transport import (
    CHECKSUM_OFFSET,
    CWR,
    FIN,
    PSH,
    SEQUENCE,
    TCP,
    TCP_HEADER,
    UDP_HEADER,
    WORD,
    Layout,
    begin_checksum,
    stated_length,
    store_ip_length,
)

SEGMENT: Final = 0x80
PARTIAL: Final = 0x90
_UNMARK: Final = 0xFF ^ PARTIAL
_MARKS: Final = 0xF0
_SEGMENT_MARKS: Final = frozenset((0xC0, 0xE0))
_PARTIAL_MARKS: Final = frozenset((0xD0, 0xF0))

_TCP_SEQUENCE, _TCP_FLAGS = 4, 13  # offsets in a TCP header
_UDP_LENGTH = 4  # offset in a UDP header


_BEGUN: Final = {
    (ip_length, protocol): virtio.HEADER.pack(virtio.NEEDS_CHECKSUM, 0, 0, 0, ip_length, offset)
    for ip_length in range(IPV4_HEADER, 61, 4)  # 60 bytes: the longest IPv4 header
    for protocol, offset in CHECKSUM_OFFSET.items()
}


def segment_head(buffer: bytearray, at: int, shape: Layout, first_counter: int) -> bytes:
    """The headers of every piece but the last, from those of the super-packet at ``at``."""
    head = bytearray(buffer[at : at + shape.length])
    head[0] |= SEGMENT
    WORD.pack_into(head, shape.ip_length + CHECKSUM_OFFSET[shape.protocol], first_counter & 0xFFFF)
    return bytes(head)


def last_head(buffer: bytearray, at: int, shape: Layout, done: int, rest: int) -> bytes:
    """The headers of the last piece: it holds ``rest`` bytes and follows ``done`` bytes."""
    head = bytearray(buffer[at : at + shape.length])
    _fit(head, 0, shape, done, rest)
    if done and shape.protocol == TCP:
        head[shape.ip_length + _TCP_FLAGS] &= ~CWR & 0xFF
    head[0] |= PARTIAL
    return bytes(head)


def is_segment(plaintext: bytes | bytearray | memoryview) -> bool:
    """Whether a plaintext (not empty) is marked as a SEGMENT."""
    return plaintext[0] & _MARKS in _SEGMENT_MARKS


def is_partial(plaintext: bytes | bytearray | memoryview) -> bool:
    """Whether a plaintext (maybe empty) is marked as a PARTIAL."""
    return len(plaintext) > 0 and plaintext[0] & _MARKS in _PARTIAL_MARKS


def unmarked(plaintext: bytes) -> bytes:
    """A SEGMENT or PARTIAL with its IP version plain again."""
    return bytes((plaintext[0] & _UNMARK,)) + plaintext[1:]


def begun_header(plaintext: bytes) -> bytes | None:
    """The virtio header of a PARTIAL: it tells the kernel which checksum to complete. None where there is
    no TCP or UDP header to do that in."""
    if plaintext[0] & 0x20:
        ip_length, protocol_at = IPV6_HEADER, 6
    else:
        ip_length, protocol_at = (plaintext[0] & 15) << 2, 9
    if len(plaintext) < IPV4_HEADER or stated_length(plaintext) > len(plaintext):
        return None
    protocol = plaintext[protocol_at]
    needed = TCP_HEADER if protocol == TCP else UDP_HEADER
    if ip_length < IPV4_HEADER or stated_length(plaintext) < ip_length + needed:
        return None
    return _BEGUN.get((ip_length, protocol))


def place(head: bytes | bytearray | memoryview, shape: Layout, counter: int) -> int:
    """Which piece of its train a SEGMENT is that came with ``counter``."""
    first: int = WORD.unpack_from(head, shape.ip_length + CHECKSUM_OFFSET[shape.protocol])[0]
    return (counter - first) & 0xFFFF


def ends(head: bytes, last: bytes, shape: Layout, done: int, rest: int) -> bool:
    """Whether ``last``, the headers of a PARTIAL with ``rest`` bytes, follows ``done`` bytes of the train
    with SEGMENT headers ``head``."""
    expected = bytearray(head)
    expected[0] &= _UNMARK
    return last == last_head(expected, 0, shape, done, rest)


def join(
    buffer: bytearray, at: int, shape: Layout, *, skipped: int, payload: int, segment: int, last: bool
) -> None:
    """Make a super-packet of the SEGMENT headers at ``at`` and the ``payload`` bytes of pieces behind them.

    ``skipped`` bytes of the train came before, ``segment`` is the segment size, ``last`` whether the last
    piece is among them. The virtio header goes into the bytes before ``at``.
    """
    buffer[at] &= _UNMARK
    several = payload > segment
    kind = 0
    if shape.protocol == TCP:
        flags_at = at + shape.ip_length + _TCP_FLAGS
        if not last:
            buffer[flags_at] &= ~(FIN | PSH) & 0xFF
        if skipped:
            buffer[flags_at] &= ~CWR & 0xFF
        kind = virtio.GSO_TCPV4 if shape.version == 4 else virtio.GSO_TCPV6
        if buffer[flags_at] & CWR:
            kind |= virtio.GSO_ECN
    else:
        kind = virtio.GSO_UDP_L4
    _fit(buffer, at, shape, skipped, payload)
    virtio.HEADER.pack_into(
        buffer,
        at - virtio.SIZE,
        virtio.NEEDS_CHECKSUM,
        kind if several else 0,
        shape.length,
        segment if several else 0,
        shape.ip_length,
        CHECKSUM_OFFSET[shape.protocol],
    )


def _fit(buffer: bytearray, at: int, shape: Layout, skipped: int, payload: int) -> None:
    """Write lengths, sequence number and begun checksum for ``payload`` bytes that follow ``skipped``."""
    size = shape.length + payload
    store_ip_length(buffer, at, shape, size)
    transport = at + shape.ip_length
    if shape.protocol != TCP:
        WORD.pack_into(buffer, transport + _UDP_LENGTH, size - shape.ip_length)
    elif skipped:
        sequence = SEQUENCE.unpack_from(buffer, transport + _TCP_SEQUENCE)[0] + skipped
        SEQUENCE.pack_into(buffer, transport + _TCP_SEQUENCE, sequence & 0xFFFFFFFF)
    begin_checksum(buffer, at, shape, size)
