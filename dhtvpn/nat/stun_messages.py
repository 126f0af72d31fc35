"""STUN messages of a peer, read with care, and the three that we write (RFC 8489).

Pure, over aioice's codec. That codec lets ``struct.error`` out, takes any cookie and cuts attributes
short without a word, so the bytes are walked here first.
"""

import hmac
import struct
from typing import Final

from aioice import stun

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.nat.demux import STUN_COOKIE, STUN_HEADER

MAX_MESSAGE: Final = 1280
"""Longest message that is read, in bytes. Ours: ICE checks take about 120, IPv6's least MTU is 1280."""

MAX_ATTRIBUTES: Final = 24
"""Most attributes that are read. Ours: ICE checks carry six."""

TRANSACTION_ID: Final = slice(8, 20)
"""Where the 96-bit transaction id is (RFC 8489 section 5)."""

_CLASS_MASK: Final = 0x0110
_MAPPED_ATTRIBUTE: Final = "XOR-MAPPED-ADDRESS"


def is_response(data: bytes) -> bool:
    """True for a success or error response: the upper class bit, 0x0100 (RFC 8489 section 5)."""
    return bool(data[0] & 0x01)


def is_indication(data: bytes) -> bool:
    """True for an indication: class bits 0b01."""
    return (data[0] << 8 | data[1]) & _CLASS_MASK == stun.Class.INDICATION


def parse(data: bytes) -> stun.Message:
    """The message in ``data``. Raises DecodeError("length", "cookie", "attributes" or "message")."""
    _check_layout(data)
    try:
        return stun.parse_message(data)
    except (ValueError, struct.error, LookupError, TypeError, OverflowError) as error:
        raise DecodeError("message", type(error).__name__) from error


def _check_layout(data: bytes) -> None:
    """Header and attribute lengths add up to exactly the datagram (RFC 8489 sections 5 and 14)."""
    if not STUN_HEADER <= len(data) <= MAX_MESSAGE or len(data) % 4:
        raise DecodeError("length")
    if int.from_bytes(data[2:4], "big") != len(data) - STUN_HEADER:
        raise DecodeError("length")
    if data[4:8] != STUN_COOKIE:
        raise DecodeError("cookie")
    offset, seen = STUN_HEADER, 0
    while offset < len(data):
        offset += 4 + (int.from_bytes(data[offset + 2 : offset + 4], "big") + 3 & ~3)
        seen += 1
    if offset != len(data) or seen > MAX_ATTRIBUTES:
        raise DecodeError("attributes")


def is_authentic(message: stun.Message, password: str) -> bool:
    """MESSAGE-INTEGRITY is present and made with ``password`` (RFC 8489 section 14.5), in constant time."""
    covered, tag = message._integrity_data, message.attributes.get("MESSAGE-INTEGRITY")
    if covered is None or not isinstance(tag, bytes):
        return False
    return hmac.compare_digest(tag, stun.message_integrity(covered, password.encode()))


def mapped_endpoint(message: stun.Message) -> Endpoint:
    """XOR-MAPPED-ADDRESS of a success response. Raises DecodeError("mapped_address")."""
    value = message.attributes.get(_MAPPED_ATTRIBUTE)
    if message.message_class is not stun.Class.RESPONSE or value is None or value[1] == 0:
        raise DecodeError("mapped_address")
    return Endpoint.from_socket(value)


def binding_request(transaction_id: bytes) -> bytes:
    """A Binding request without attributes: 20 bytes."""
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id))


def binding_indication(transaction_id: bytes) -> bytes:
    """A Binding indication: 20 bytes that open a NAT's mapping and are not answered."""
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.INDICATION, transaction_id))


def binding_response(transaction_id: bytes, mapped: Endpoint, fingerprint: bool = False) -> bytes:
    """A Binding success response: 32 bytes for IPv4, 44 for IPv6, 8 more with FINGERPRINT."""
    response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id)
    response.attributes[_MAPPED_ATTRIBUTE] = tuple(mapped.without_zone())
    if fingerprint:
        response.add_fingerprint()
    return bytes(response)
