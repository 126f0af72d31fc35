"""Where the TCP (RFC 9293) or UDP (RFC 768) header of a packet is, and the sums that depend on it.

Everything works on a buffer and the offset of an IP header in it, so that nothing is copied. IPv4 options
are followed; IPv6 extension headers are not: such packets are never joined.
"""

from struct import Struct
from typing import Final, NamedTuple

from dhtvpn.packet.ip import IPV4_HEADER, IPV6_HEADER

TCP: Final = 6
UDP: Final = 17
TCP_HEADER: Final = 20
UDP_HEADER: Final = 8
CHECKSUM_OFFSET: Final = {TCP: 16, UDP: 6}
"""Bytes from the start of the transport header to its checksum."""

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
URG: Final = 0x20
CWR: Final = 0x80

WORD: Final = Struct("!H")
SEQUENCE: Final = Struct("!I")
_SHORT_BITS: Final = 1024
_MASKS: Final[dict[int, int]] = {}
"""By length in bits, a multiple of 512 and at most that of half a packet: 8 MB if all were ever needed."""
_IPV4_WORDS: Final = Struct("!10H")
_IPV4_ADDRESSES: Final = Struct("!4H")
_IPV6_ADDRESSES: Final = Struct("!16H")


class Layout(NamedTuple):
    """The shape of a packet's headers, in bytes."""

    version: int
    protocol: int
    ip_length: int
    """Length of the IP header: the transport header starts there."""
    length: int
    """Length of both headers: the payload starts there."""


def layout(buffer: bytes | bytearray | memoryview, at: int, size: int) -> Layout | None:
    """The layout of the packet of ``size`` bytes at ``at``; None where it is no whole TCP or UDP packet.

    The high nibble of the first byte may be marked (``train``): its two low bits tell the version.
    """
    if size < IPV4_HEADER:
        return None
    first = buffer[at]
    if first & 0x20:
        version, protocol, ip_length = 6, buffer[at + 6], IPV6_HEADER
    else:
        version, protocol, ip_length = 4, buffer[at + 9], (first & 15) << 2
        if ip_length < IPV4_HEADER or (buffer[at + 6] & 0x3F) | buffer[at + 7]:  # a fragment
            return None
    length = _transport_end(buffer, at, size, protocol, ip_length)
    return Layout(version, protocol, ip_length, length) if length else None


def _transport_end(
    buffer: bytes | bytearray | memoryview, at: int, size: int, protocol: int, start: int
) -> int:
    """Where the TCP or UDP header ends that begins at ``start``; 0 where it is neither, or not whole."""
    if protocol == TCP and size >= start + TCP_HEADER:
        end = start + (buffer[at + start + 12] >> 4 << 2)
        return end if start + TCP_HEADER <= end <= size else 0
    if protocol == UDP and size >= start + UDP_HEADER:
        return start + UDP_HEADER
    return 0


def stated_length(buffer: bytes | bytearray | memoryview, at: int = 0) -> int:
    """What the IP header at ``at`` says the packet's length is, in bytes; it may be marked (``train``)."""
    if buffer[at] & 0x20:
        return IPV6_HEADER + (buffer[at + 4] << 8 | buffer[at + 5])
    return buffer[at + 2] << 8 | buffer[at + 3]


def pseudo_header_sum(
    buffer: bytes | bytearray | memoryview, at: int, version: int, protocol: int, length: int
) -> int:
    """The 16-bit one's complement sum of the pseudo-header, not inverted: what a begun checksum holds.

    ``length`` is that of the transport header and payload.
    """
    if version == 4:
        total = sum(_IPV4_ADDRESSES.unpack_from(buffer, at + 12))
    else:
        total = sum(_IPV6_ADDRESSES.unpack_from(buffer, at + 8))
    return _fold(total + protocol + length)


def store_ip_length(buffer: bytearray, at: int, shape: Layout, size: int) -> None:
    """Write the packet's ``size`` into its IP header, and with IPv4 the header checksum anew."""
    if shape.version == 6:
        WORD.pack_into(buffer, at + 4, size - IPV6_HEADER)
        return
    WORD.pack_into(buffer, at + 2, size)
    buffer[at + 10 : at + 12] = b"\0\0"
    total = sum(_IPV4_WORDS.unpack_from(buffer, at))
    for word in range(IPV4_HEADER, shape.ip_length, 2):
        total += WORD.unpack_from(buffer, at + word)[0]
    WORD.pack_into(buffer, at + 10, _fold(total) ^ 0xFFFF)


def _fold(total: int) -> int:
    """A sum of at most 65,536 words in one's complement arithmetic."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


def begin_checksum(buffer: bytearray, at: int, shape: Layout, size: int) -> None:
    """Write the begun checksum of the packet of ``size`` bytes: the kernel completes it."""
    total = pseudo_header_sum(buffer, at, shape.version, shape.protocol, size - shape.ip_length)
    WORD.pack_into(buffer, at + shape.ip_length + CHECKSUM_OFFSET[shape.protocol], total)


def ones_complement_sum(data: bytes | bytearray | memoryview) -> int:
    """The one's complement sum of ``data`` in 16-bit words, 0 to 65535; an odd last byte counts high.

    2**16 is 1 modulo 65535, so the sum of the words is the whole number modulo 65535 (RFC 1071 section 2).
    """
    number, bits = int.from_bytes(data, "big"), len(data) << 3
    if bits & 8:
        number, bits = number << 8, bits + 8
    while bits > _SHORT_BITS:  # halving is cheaper than the division of so long a number
        half = bits >> 10 << 9
        mask = _MASKS.get(half)
        if mask is None:
            mask = _MASKS[half] = (1 << half) - 1
        number = (number >> half) + (number & mask)
        bits -= half - 16
    return number % 0xFFFF


def complete_checksum(buffer: bytearray, start: int, end: int, checksum_at: int) -> None:
    """Complete a begun checksum: the field at ``checksum_at`` becomes the checksum of ``start`` to ``end``.

    It is never 0, which with UDP would mean "none" (RFC 768).
    """
    WORD.pack_into(buffer, checksum_at, ones_complement_sum(memoryview(buffer)[start:end]) ^ 0xFFFF)
