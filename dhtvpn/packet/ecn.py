"""Explicit congestion notification through a tunnel (RFC 3168, RFC 6040).

Going in, the outer header copies the two bits of the inner one. Coming out, a mark that a router on the way
has set is carried over to the inner header, and a packet whose sender does not know ECN is dropped where a
router would have dropped it.
"""

from typing import Final

from dhtvpn.packet.transport import WORD

NOT_ECT: Final = 0
ECT_1: Final = 1
ECT_0: Final = 2
CE: Final = 3

_DROP: Final = -1
# RFC 6040 section 4.2, figure 4: by inner bits, then by outer bits
_OUT: Final = (
    (NOT_ECT, NOT_ECT, NOT_ECT, _DROP),
    (ECT_1, ECT_1, ECT_1, CE),
    (ECT_0, ECT_1, ECT_0, CE),
    (CE, CE, CE, CE),
)


def bits_of(buffer: bytes | bytearray | memoryview, at: int = 0) -> int:
    """The ECN bits of the IP packet at ``at``; its first byte may be marked (``train``)."""
    if buffer[at] & 0x20:
        return buffer[at + 1] >> 4 & 3
    return buffer[at + 1] & 3


def leave_tunnel(buffer: bytearray, at: int, outer: int) -> bool:
    """Carry the ``outer`` bits over to the packet at ``at``. False where it is to be dropped."""
    inner = bits_of(buffer, at)
    bits = _OUT[inner][outer]
    if bits == _DROP:
        return False
    if bits == inner:
        return True
    if buffer[at] & 0x20:
        buffer[at + 1] = (buffer[at + 1] & 0xCF) | bits << 4
        return True
    buffer[at + 1] = (buffer[at + 1] & 0xFC) | bits
    # RFC 1624 equation 3, for a word that grows or shrinks by the difference of the bits
    checksum: int = WORD.unpack_from(buffer, at + 10)[0]
    total = (checksum ^ 0xFFFF) + ((inner - bits) ^ 0xFFFF if inner > bits else bits - inner)
    total = (total & 0xFFFF) + (total >> 16)
    WORD.pack_into(buffer, at + 10, (total & 0xFFFF) ^ 0xFFFF)
    return True
