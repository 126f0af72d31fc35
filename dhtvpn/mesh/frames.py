"""Control frames: what two nodes say to each other inside their tunnel.

A control frame is the plaintext of a data message whose first byte has the high nibble 0, so that a
stock WireGuard peer, which expects an IP version there, drops it. Layout and registry:
docs/protocol/control-frames.md.

    offset  size  field
    0       1     kind, 0x01-0x0f
    1       2     length of the body, big-endian
    3       n     body
    3+n           zero padding of the data message, ignored
"""

import re
import struct
from dataclasses import dataclass

from dhtvpn.errors import DecodeError

HELLO_VERSION = 1
HEADER = struct.Struct("!BH")
MAX_FRAME = 1200
"""Bytes of a frame without padding: fits every path that carries IPv6 (1,280 less the outer headers)."""
MAX_NAME = 63
NONCE_SIZE = 16
TOKEN_SIZE = 8

FEATURE_TRAINS = 1 << 0
"""Takes trains of TCP segments, and packets with a begun checksum (docs/protocol/trains.md)."""
FEATURE_AES = 1 << 1
"""Wants its data messages sealed with AES-256-GCM (type 5, docs/protocol/tunnel.md)."""
FEATURE_UDP_TRAINS = 1 << 2
"""Takes trains of UDP datagrams."""

FEATURE_BLOCKS = 1 << 4
"""Takes blocks once it has said so, and says when (docs/protocol/blocks.md)."""

_HELLO = struct.Struct(f"!BI{NONCE_SIZE}sB")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_KIND_HELLO, _KIND_PING, _KIND_PONG, _KIND_GOODBYE = 0x01, 0x02, 0x03, 0x04
_KIND_PROBE, _KIND_PROBE_ACK = 0x05, 0x06
KIND_BLOCKS = 0x09
"""Of a Blocks frame: the engines talk by it, so it is told from the others before they are read."""


@dataclass(frozen=True)
class Hello:
    """The first frame of a session: which run of the node this is and what it understands."""

    session_nonce: bytes
    """16 bytes, drawn when the node started; the same as in its endpoint record."""
    features: int
    """Bit set of 32: the FEATURE_ constants; bits that we do not know are ignored."""
    name: str


@dataclass(frozen=True)
class Ping:
    """Asks for a Pong with the same 8-byte token: measures the round trip, keeps the mapping open."""

    token: bytes


@dataclass(frozen=True)
class Pong:
    """The answer to a Ping."""

    token: bytes


@dataclass(frozen=True)
class Goodbye:
    """The sender leaves the network now; its session nonce will not be used again."""


@dataclass(frozen=True)
class Probe:
    """Asks for a ProbeAck with the same token. Sent with the padding that makes a datagram of the size
    that is tried (``path_mtu``); the padding is the data message's, so the frame itself stays small."""

    token: bytes


@dataclass(frozen=True)
class ProbeAck:
    """The Probe with this token arrived whole."""

    token: bytes


@dataclass(frozen=True)
class Blocks:
    """Whether the sender wants super-packets as blocks from now on, rather than as trains."""

    wanted: bool


Frame = Hello | Ping | Pong | Goodbye | Probe | ProbeAck | Blocks

_OF_TOKEN: dict[int, type[Ping | Pong | Probe | ProbeAck]] = {
    _KIND_PING: Ping,
    _KIND_PONG: Pong,
    _KIND_PROBE: Probe,
    _KIND_PROBE_ACK: ProbeAck,
}


def encode(frame: Frame) -> bytes:
    """The bytes of ``frame``, header included, without padding."""
    match frame:
        case Hello():
            name = frame.name.encode("ascii")
            kind = _KIND_HELLO
            body = _HELLO.pack(HELLO_VERSION, frame.features, frame.session_nonce, len(name)) + name
        case Ping():
            kind, body = _KIND_PING, frame.token
        case Pong():
            kind, body = _KIND_PONG, frame.token
        case Goodbye():
            kind, body = _KIND_GOODBYE, b""
        case Probe():
            kind, body = _KIND_PROBE, frame.token
        case ProbeAck():
            kind, body = _KIND_PROBE_ACK, frame.token
        case Blocks():
            kind, body = KIND_BLOCKS, bytes((frame.wanted,))
    return HEADER.pack(kind, len(body)) + body


def decode(plaintext: bytes) -> Frame:
    """The frame in the plaintext of a data message, padding ignored.

    A Hello of a later version is read as far as it is known, so that versions can grow at the end.
    Raises DecodeError with reason "frame_length", "frame_kind" or "frame_body".
    """
    if len(plaintext) < HEADER.size:
        raise DecodeError("frame_length")
    kind, length = HEADER.unpack_from(plaintext)
    if length > MAX_FRAME - HEADER.size or HEADER.size + length > len(plaintext):
        raise DecodeError("frame_length")
    body = plaintext[HEADER.size : HEADER.size + length]
    if kind == _KIND_HELLO:
        return _decode_hello(body)
    if kind in _OF_TOKEN:
        if length != TOKEN_SIZE:
            raise DecodeError("frame_body")
        return _OF_TOKEN[kind](body)
    if kind == _KIND_GOODBYE:
        return Goodbye()
    if kind == KIND_BLOCKS:
        if length != 1 or body[0] > 1:
            raise DecodeError("frame_body")
        return Blocks(bool(body[0]))
    raise DecodeError("frame_kind")


def _decode_hello(body: bytes) -> Hello:
    if len(body) < _HELLO.size:
        raise DecodeError("frame_body")
    version, features, nonce, name_length = _HELLO.unpack_from(body)
    name = body[_HELLO.size : _HELLO.size + name_length]
    if version < HELLO_VERSION or len(name) != name_length or name_length > MAX_NAME:
        raise DecodeError("frame_body")
    text = name.decode("ascii", "replace")
    if not _NAME.fullmatch(text):
        raise DecodeError("frame_body")
    return Hello(nonce, features, text)
