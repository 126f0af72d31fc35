"""Does our NAT let in what comes from another port of a host that we have sent to (RFC 5780 section 4.4)?

Any DHT node is the server. It answers a Binding request that has CHANGE-REQUEST ("change port") twice: from a
second port, which the asker has never sent to, and from its own, so that silence from the second can be told
from a server that is not there or does not know the question. The request is padded to be no shorter than
both answers with all their headers: nobody gains a byte by asking in another's name.

    request   20 header, 8 CHANGE-REQUEST 00000002, 4 + 128 PADDING of zeros: 160 bytes
    answers   Binding success responses with XOR-MAPPED-ADDRESS: 32 or 44 bytes each, and OTHER-ADDRESS
              (12 or 24 more) in the one from the server's own port

Whether another *address* would get in is not asked: a pair fails only where one side's ports cannot be
foreseen and the other side's NAT asks for the port.

Here is the question; ``filtering`` asks it, ``plain_stun`` answers.
"""

import struct
from typing import Final

from dhtvpn.nat.demux import STUN_COOKIE, STUN_HEADER

REQUEST_SIZE: Final = 160
_CHANGE_PORT: Final = 0x2  # RFC 5780 section 7.2
_CHANGE_REQUEST, _PADDING = 0x0003, 0x0026
_PADDING_SIZE: Final = REQUEST_SIZE - STUN_HEADER - 8 - 4
_TAIL: Final = struct.pack("!HHIHH", _CHANGE_REQUEST, 4, _CHANGE_PORT, _PADDING, _PADDING_SIZE) + bytes(
    _PADDING_SIZE
)
_HEAD: Final = struct.pack("!HH", 0x0001, REQUEST_SIZE - STUN_HEADER) + STUN_COOKIE


def request(transaction_id: bytes) -> bytes:
    """The question, REQUEST_SIZE bytes."""
    return _HEAD + transaction_id + _TAIL


def transaction_of(data_untrusted: bytes) -> bytes | None:
    """The transaction id of a datagram that is exactly such a question, else None."""
    if len(data_untrusted) != REQUEST_SIZE or data_untrusted[:8] != _HEAD:
        return None
    return data_untrusted[8:20] if data_untrusted[STUN_HEADER:] == _TAIL else None
