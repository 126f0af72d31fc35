"""Cuts a packet into IP fragments (RFC 791 section 3.2, RFC 8200 section 4.5); the receiving host joins them.

For packets of this very machine that a path does not take whole and that must go all the same. IPv6 lets only
the source fragment: that is the host we run on.
"""

import struct
from typing import Final

from dhtvpn.errors import DecodeError
from dhtvpn.packet.checksum import internet_checksum
from dhtvpn.packet.ip import IPV4_HEADER, IPV6_HEADER, IPV6_MIN_MTU, addresses

MAX_EXTENSION_HEADERS: Final = 8  # ours, as for reading headers

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_DONT_FRAGMENT, _MORE, _OFFSET = 0x4000, 0x2000, 0x1FFF  # of IPv4's flags and fragment offset
_FRAGMENT_HEADER: Final = struct.Struct("!BxHI")


def may_be(packet: bytes | bytearray) -> int:
    """How long a packet like this one may be whatever the path takes: bytes, 0 where the path decides.

    IPv4 may be fragmented unless it says otherwise. IPv6 has a right to 1,280 bytes (RFC 8200 section 5).
    """
    if packet[0] >> 4 == 6:
        return IPV6_MIN_MTU
    return 0 if packet[6] << 8 & _DONT_FRAGMENT else 65535


def split(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """``packet``, longer than ``mtu`` bytes, as fragments of at most ``mtu``; padding behind it is left out.

    ``identification`` (32 bits) tells the fragments of one IPv6 packet from those of another; IPv4 brings
    its own. Raises DecodeError for bytes that are no packet, with "options" or "extension" for headers
    that stand in the way, and "mtu" where not even the headers fit.
    """
    length, source, _ = addresses(packet)
    if len(source) == 4:
        return _split_v4(packet[:length], mtu)
    return _split_v6(packet[:length], mtu, identification)


def _split_v4(packet: bytes, mtu: int) -> list[bytes]:
    if packet[0] & 15 != IPV4_HEADER >> 2:
        raise DecodeError("options")  # which to copy is an art, and nobody uses them
    field = packet[6] << 8 | packet[7]
    first, more_behind = (field & _OFFSET) << 3, bool(field & _MORE)
    pieces = []
    for start, data, more in _cut(packet[IPV4_HEADER:], mtu - IPV4_HEADER):
        header = bytearray(packet[:IPV4_HEADER])
        flags = _MORE if more or more_behind else 0
        struct.pack_into("!H", header, 2, IPV4_HEADER + len(data))
        struct.pack_into("!H", header, 6, flags | (first + start) >> 3)
        struct.pack_into("!H", header, 10, 0)
        struct.pack_into("!H", header, 10, internet_checksum(bytes(header)))
        pieces.append(bytes(header) + data)
    return pieces


def _split_v6(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    at, offset = _unfragmentable(packet)  # where the next header is named, where it starts
    kind, end, first, more_behind = packet[at], offset, 0, False
    if kind == _FRAGMENT:  # the source has cut it already: into smaller pieces of the same whole
        if offset + 8 > len(packet):
            raise DecodeError("extension")
        kind, field, identification = _FRAGMENT_HEADER.unpack_from(packet, offset)
        first, more_behind, end = field & 0xFFF8, bool(field & 1), offset + 8
    pieces = []
    for start, data, more in _cut(packet[end:], mtu - offset - 8):
        head = bytearray(packet[:offset])
        head[at] = _FRAGMENT
        struct.pack_into("!H", head, 4, offset - IPV6_HEADER + 8 + len(data))
        field = first + start | (more or more_behind)
        pieces.append(bytes(head) + _FRAGMENT_HEADER.pack(kind, field, identification) + data)
    return pieces


def _unfragmentable(packet: bytes) -> tuple[int, int]:
    """Where the header that follows the unfragmentable part is named, and where it starts: behind the
    hop-by-hop and the routing header, and what stands before those (RFC 8200 section 4.5)."""
    at, offset = 6, IPV6_HEADER
    found = at, offset
    for _ in range(MAX_EXTENSION_HEADERS):
        kind = packet[at]
        if kind not in (_HOP_BY_HOP, _ROUTING, _DESTINATION):
            return found
        if offset + 8 > len(packet):
            raise DecodeError("extension")
        at, offset = offset, offset + (packet[offset + 1] + 1 << 3)
        if offset > len(packet):
            raise DecodeError("extension")
        if kind != _DESTINATION:
            found = at, offset
    raise DecodeError("extension")


def _cut(payload: bytes, room: int) -> list[tuple[int, bytes, bool]]:
    """Offset, bytes, and whether more follow, of pieces of at most ``room`` bytes in units of eight."""
    step = room & ~7
    if step <= 0:
        raise DecodeError("mtu")
    size = len(payload)
    return [(start, payload[start : start + step], start + step < size) for start in range(0, size, step)]
