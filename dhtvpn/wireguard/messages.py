"""The three handshake messages, as bytes (paper sections 5.4.2, 5.4.3 and 5.4.7).

  1, initiation, 148 bytes:  type 1, zero 3, sender 4, ephemeral 32, static 48, timestamp 28, mac1 16, mac2 16
  2, response, 92 bytes:     type 1, zero 3, sender 4, receiver 4, ephemeral 32, empty 16, mac1 16, mac2 16
  3, cookie reply, 64 bytes: type 1, zero 3, receiver 4, nonce 24, cookie 32

Each is a sequence of fields, shown with their sizes. Integers are little-endian. ``pack`` gives the message
without its two MACs where it has them: the ``cookie`` module appends those, and checks them before anything
here looks at the message. Type 4 is in ``transport``.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from dhtvpn.errors import DecodeError
from dhtvpn.wireguard.constants import (
    COOKIE_NONCE_SIZE,
    COOKIE_SIZE,
    KEY_SIZE,
    MAC_SIZE,
    TAG_SIZE,
    TIMESTAMP_SIZE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
)

MACS_SIZE: Final = 2 * MAC_SIZE
SEALED_KEY_SIZE: Final = KEY_SIZE + TAG_SIZE
SEALED_TIMESTAMP_SIZE: Final = TIMESTAMP_SIZE + TAG_SIZE
SEALED_COOKIE_SIZE: Final = COOKIE_SIZE + TAG_SIZE

_INITIATION: Final = Struct(f"<II{KEY_SIZE}s{SEALED_KEY_SIZE}s{SEALED_TIMESTAMP_SIZE}s")
_RESPONSE: Final = Struct(f"<III{KEY_SIZE}s{TAG_SIZE}s")
_COOKIE_REPLY: Final = Struct(f"<II{COOKIE_NONCE_SIZE}s{SEALED_COOKIE_SIZE}s")
_SENDER: Final = Struct("<4xI")

INITIATION_SIZE: Final = _INITIATION.size + MACS_SIZE
RESPONSE_SIZE: Final = _RESPONSE.size + MACS_SIZE
COOKIE_REPLY_SIZE: Final = _COOKIE_REPLY.size

SIZES: Final = {
    TYPE_INITIATION: INITIATION_SIZE,
    TYPE_RESPONSE: RESPONSE_SIZE,
    TYPE_COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


def message_type(datagram: bytes) -> int:
    """1, 2 or 3. Raises DecodeError "type" for anything else and "length" for a wrong length."""
    if len(datagram) < 4:
        raise DecodeError("length")
    kind = int.from_bytes(datagram[:4], "little")
    size = SIZES.get(kind)
    if size is None:
        raise DecodeError("type")
    if len(datagram) != size:
        raise DecodeError("length")
    return kind


def sender_index(datagram: bytes) -> int:
    """The sender's index in an initiation or a response whose type is known."""
    index: int = _SENDER.unpack_from(datagram)[0]
    return index


@dataclass(frozen=True, slots=True)
class Initiation:
    """Type 1: the initiator's ephemeral key, its static key and a time stamp, both sealed."""

    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes

    def pack(self) -> bytes:
        """The message without its MACs: 116 bytes."""
        return _INITIATION.pack(TYPE_INITIATION, self.sender, self.ephemeral, self.static, self.timestamp)

    @classmethod
    def unpack(cls, datagram: bytes) -> "Initiation":
        """From a whole datagram. Raises DecodeError "type" or "length"."""
        _require(datagram, TYPE_INITIATION)
        _, sender, ephemeral, static, timestamp = _INITIATION.unpack_from(datagram)
        return cls(sender, ephemeral, static, timestamp)


@dataclass(frozen=True, slots=True)
class Response:
    """Type 2: the responder's ephemeral key and a proof that it has all keys (an empty sealed text)."""

    sender: int
    receiver: int
    ephemeral: bytes
    empty: bytes

    def pack(self) -> bytes:
        """The message without its MACs: 60 bytes."""
        return _RESPONSE.pack(TYPE_RESPONSE, self.sender, self.receiver, self.ephemeral, self.empty)

    @classmethod
    def unpack(cls, datagram: bytes) -> "Response":
        """From a whole datagram. Raises DecodeError "type" or "length"."""
        _require(datagram, TYPE_RESPONSE)
        _, sender, receiver, ephemeral, empty = _RESPONSE.unpack_from(datagram)
        return cls(sender, receiver, ephemeral, empty)


@dataclass(frozen=True, slots=True)
class CookieReply:
    """Type 3: a cookie, sealed under the responder's public key and the mac1 that it answers."""

    receiver: int
    nonce: bytes
    cookie: bytes

    def pack(self) -> bytes:
        """The whole message: 64 bytes."""
        return _COOKIE_REPLY.pack(TYPE_COOKIE_REPLY, self.receiver, self.nonce, self.cookie)

    @classmethod
    def unpack(cls, datagram: bytes) -> "CookieReply":
        """From a whole datagram. Raises DecodeError "type" or "length"."""
        _require(datagram, TYPE_COOKIE_REPLY)
        _, receiver, nonce, cookie = _COOKIE_REPLY.unpack_from(datagram)
        return cls(receiver, nonce, cookie)


def _require(datagram: bytes, kind: int) -> None:
    if message_type(datagram) != kind:
        raise DecodeError("type")
