"""The Internet checksum (RFC 1071) and the pseudo-header of IPv6 (RFC 8200 section 8.1)."""

import struct


def internet_checksum(data: bytes, initial: int = 0) -> int:
    """The one's complement of the one's complement sum of ``data`` in 16-bit words, 0 to 65535.

    An odd last byte counts as the high half of a word (RFC 1071 section 4.1). ``initial`` is a partial sum,
    such as that of a pseudo-header. Over data that holds a right checksum the result is 0.
    """
    if len(data) % 2:
        data += b"\0"
    total: int = initial + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv6_pseudo_header_sum(source: bytes, destination: bytes, length: int, next_header: int) -> int:
    """The partial sum of the IPv6 pseudo-header; ``length`` is that of the upper-layer packet in bytes."""
    addresses: int = sum(struct.unpack("!16H", source + destination))
    return addresses + (length >> 16) + (length & 0xFFFF) + next_header
