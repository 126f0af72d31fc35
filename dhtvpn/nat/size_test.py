"""Does a datagram of this size get through? A Binding request that PADDING makes as long as is wanted.

Any DHT node is the server, and answers it like every Binding request: with fewer bytes than the request has.

    request   20 header, 4 + n PADDING (RFC 5780 section 7.6; what it holds is ignored): LEAST to MOST bytes
    answer    Binding success response with XOR-MAPPED-ADDRESS: 32 or 44 bytes

Here is the question; ``path_size`` asks it, ``plain_stun`` and ``stun_service`` answer.
"""

import struct
from typing import Final

from dhtvpn.nat.demux import STUN_COOKIE, STUN_HEADER

LEAST: Final = 64
"""Bytes: longer than the answer."""
MOST: Final = 1472
"""Bytes: with the headers of IPv4 and UDP a full Ethernet frame."""

_BINDING_REQUEST, _PADDING = 0x0001, 0x0026
_HEADER: Final = struct.Struct("!HH4s12sHH")
_ATTRIBUTE: Final = 4


def request(transaction_id: bytes, size: int) -> bytes:
    """The question, ``size`` bytes: LEAST to MOST, a multiple of four."""
    padding = size - STUN_HEADER - _ATTRIBUTE
    head = _HEADER.pack(_BINDING_REQUEST, size - STUN_HEADER, STUN_COOKIE, transaction_id, _PADDING, padding)
    return head + bytes(padding)


def transaction_of(data_untrusted: bytes) -> bytes | None:
    """The transaction id of a datagram that is such a question, else None."""
    size = len(data_untrusted)
    if not LEAST <= size <= MOST or size % 4:
        return None
    kind, length, cookie, transaction_id, attribute, padding = _HEADER.unpack_from(data_untrusted)
    if (kind, length, cookie) != (_BINDING_REQUEST, size - STUN_HEADER, STUN_COOKIE):
        return None
    if (attribute, padding) != (_PADDING, size - STUN_HEADER - _ATTRIBUTE):
        return None
    return bytes(transaction_id)
