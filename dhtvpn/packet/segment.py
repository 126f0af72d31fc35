"""Segmentation in software: a super-packet from the device becomes the packets that a wire would see.

For peers that know no trains. What the kernel's own segmentation does: lengths, IPv4 identification, TCP
sequence number and flags, and complete checksums.
"""

from dhtvpn.packet.transport import (
    CWR,
    FIN,
    PSH,
    SEQUENCE,
    UDP,
    WORD,
    Layout,
    ones_complement_sum,
    pseudo_header_sum,
    store_ip_length,
)

_TCP_SEQUENCE, _TCP_FLAGS, _TCP_CHECKSUM = 4, 13, 16  # offsets in a TCP header
_UDP_CHECKSUM = 6


def split(buffer: bytearray, at: int, shape: Layout, size: int, segment: int) -> list[bytes]:
    """The packets of the super-packet of ``size`` bytes at ``at``, ``segment`` payload bytes each."""
    view, start, end = memoryview(buffer), at + shape.length, at + size
    head = bytearray(view[at:start])
    transport = shape.ip_length
    identification = WORD.unpack_from(head, 4)[0]
    udp = shape.protocol == UDP
    if not udp:
        sequence, flags = (
            SEQUENCE.unpack_from(head, transport + _TCP_SEQUENCE)[0],
            head[transport + _TCP_FLAGS],
        )
    checksum_at = transport + (_UDP_CHECKSUM if udp else _TCP_CHECKSUM)
    packets = []
    for number, offset in enumerate(range(start, end, segment)):
        body = view[offset : min(offset + segment, end)]
        total = shape.length + len(body)
        if shape.version == 4:
            WORD.pack_into(head, 4, (identification + number) & 0xFFFF)
        store_ip_length(head, 0, shape, total)
        if udp:
            WORD.pack_into(head, transport + 4, total - transport)
        else:
            SEQUENCE.pack_into(head, transport + _TCP_SEQUENCE, (sequence + offset - start) & 0xFFFFFFFF)
            kept = flags if offset + segment >= end else flags & ~(FIN | PSH)
            head[transport + _TCP_FLAGS] = kept & ~CWR & 0xFF if number else kept
        head[checksum_at : checksum_at + 2] = b"\0\0"
        total_sum = (
            pseudo_header_sum(head, 0, shape.version, shape.protocol, total - transport)
            + ones_complement_sum(head[transport:])
            + ones_complement_sum(body)
        )
        checksum = total_sum % 0xFFFF ^ 0xFFFF
        WORD.pack_into(head, checksum_at, checksum)
        packets.append(bytes(head) + body)
    return packets
