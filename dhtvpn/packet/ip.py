"""Headers of IPv4 (RFC 791) and IPv6 (RFC 8200), read strictly from bytes that nobody vouches for.

:func:`addresses` is for every packet: three values, nothing more. :func:`parse` tells the rest, for the
few packets that need an answer.
"""

from typing import Final, NamedTuple

from dhtvpn.errors import DecodeError

IPV4_HEADER: Final = 20  # bytes, without options: RFC 791 section 3.1
IPV6_HEADER: Final = 40  # bytes: RFC 8200 section 3
IPV6_MIN_MTU: Final = 1280  # bytes: RFC 8200 section 5
ICMP: Final = 1
ICMPV6: Final = 58
MAX_EXTENSION_HEADERS: Final = 8  # ours: no real packet chains more; bounds the walk

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_EXTENSIONS = frozenset((_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION))


class IpHeader(NamedTuple):
    """One packet's header. Addresses are 4 or 16 bytes; lengths and offsets are bytes."""

    version: int
    source: bytes
    destination: bytes
    total_length: int
    """Length that the header states: the packet without any padding behind it."""
    protocol: int
    """Upper-layer protocol, behind IPv6 extension headers; the last header reached where they are cut."""
    payload_offset: int
    """Where the upper-layer header starts. At most ``total_length``."""
    dont_fragment: bool
    """IPv4's flag; always True for IPv6, which routers never fragment."""
    fragment_offset: int
    """Zero for a whole packet and for a first fragment."""


def addresses(packet: bytes | bytearray | memoryview) -> tuple[int, bytes, bytes]:
    """Length by the header, source and destination of the packet at the start of ``packet``.

    Bytes behind that length are padding. Raises DecodeError("empty", "version", "truncated", "header").
    """
    size = len(packet)
    if size == 0:
        raise DecodeError("empty")
    first = packet[0]
    version = first >> 4
    if version == 4:
        if size < IPV4_HEADER:
            raise DecodeError("truncated")
        length = packet[2] << 8 | packet[3]
        if length > size:
            raise DecodeError("truncated")
        header_length = (first & 15) << 2
        if header_length < IPV4_HEADER or length < header_length:
            raise DecodeError("header")
        return length, bytes(packet[12:16]), bytes(packet[16:20])
    if version == 6:
        if size < IPV6_HEADER:
            raise DecodeError("truncated")
        length = IPV6_HEADER + (packet[4] << 8 | packet[5])
        if length > size:
            raise DecodeError("truncated")
        return length, bytes(packet[8:24]), bytes(packet[24:40])
    raise DecodeError("version")


def parse(packet: bytes | bytearray | memoryview) -> IpHeader:
    """The whole header. Raises DecodeError as :func:`addresses` does, and "extension" for a chain of
    IPv6 extension headers that is cut or too long."""
    length, source, destination = addresses(packet)
    if len(source) == 16:
        protocol, offset, fragment_offset = _walk_extensions(packet, length)
        return IpHeader(6, source, destination, length, protocol, offset, True, fragment_offset)
    flags = packet[6] << 8 | packet[7]
    return IpHeader(
        version=4,
        source=source,
        destination=destination,
        total_length=length,
        protocol=packet[9],
        payload_offset=(packet[0] & 15) << 2,
        dont_fragment=bool(flags & 0x4000),
        fragment_offset=(flags & 0x1FFF) << 3,
    )


def _walk_extensions(packet: bytes | bytearray | memoryview, length: int) -> tuple[int, int, int]:
    """Upper-layer protocol, its offset, and the fragment offset (RFC 8200 section 4)."""
    protocol, offset, fragment_offset = packet[6], IPV6_HEADER, 0
    for _ in range(MAX_EXTENSION_HEADERS):
        if protocol not in _EXTENSIONS:
            return protocol, offset, fragment_offset
        if offset + 8 > length:
            raise DecodeError("extension")
        if protocol == _FRAGMENT:
            fragment_offset = (packet[offset + 2] << 8 | packet[offset + 3]) & 0xFFF8
            step = 8
        elif protocol == _AUTHENTICATION:
            step = (packet[offset + 1] + 2) << 2  # RFC 4302 section 2.2
        else:
            step = (packet[offset + 1] + 1) << 3
        protocol, offset = packet[offset], offset + step
        if offset > length:
            raise DecodeError("extension")
        if fragment_offset:
            return protocol, offset, fragment_offset  # what follows is the middle of something
    raise DecodeError("extension")
