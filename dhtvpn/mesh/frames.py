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

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.routes import MAX_LINKS, Links

HELLO_VERSION = 1
HEADER = struct.Struct("!BH")
MAX_FRAME = 1200
"""Bytes of a frame without padding: fits every path that carries IPv6 (1,280 less the outer headers)."""
MAX_NAME = 63
NONCE_SIZE = 16
TOKEN_SIZE = 8
MAX_CANDIDATES = 16
"""In a Signal; as in a record."""

FEATURE_TRAINS = 1 << 0
"""Takes trains of TCP segments, and packets with a begun checksum (docs/protocol/trains.md)."""
FEATURE_AES = 1 << 1
"""Wants its data messages sealed with AES-256-GCM (type 5, docs/protocol/tunnel.md)."""
FEATURE_UDP_TRAINS = 1 << 2
"""Takes trains of UDP datagrams."""

FEATURE_RELAY = 1 << 3
"""Relays for other members (docs/protocol/relay.md)."""
FEATURE_BLOCKS = 1 << 4
"""Takes blocks once it has said so, and says when (docs/protocol/blocks.md)."""
FEATURE_HEARD = 1 << 31
"""No feature: the sender has had a Hello of the receiver in this session, and wants no other."""

KEY_SIZE = 8
"""Bytes of a node key that name a member in Neighbours."""

_LINKS, _LINK = struct.Struct("!8sIBB"), struct.Struct("!8sH")
_TENTHS = 10.0
_HELLO = struct.Struct(f"!BI{NONCE_SIZE}sB")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_KIND_HELLO, _KIND_PING, _KIND_PONG, _KIND_GOODBYE = 0x01, 0x02, 0x03, 0x04
_KIND_PROBE, _KIND_PROBE_ACK = 0x05, 0x06
_KIND_SIGNAL, _KIND_NEIGHBOURS = 0x07, 0x08
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
class Signal:
    """Where the sender may be reached now: through a relay this is known a round trip later, where the
    directory may take seconds. The receiver tries for a direct path at once."""

    session_nonce: bytes
    """16 bytes, as in the Hello."""
    candidates: tuple[tuple[int, Endpoint], ...]
    """Kind (docs/protocol/record.md) and endpoint, MAX_CANDIDATES at most, best first."""


@dataclass(frozen=True)
class Neighbours:
    """Whom a member reaches directly, and how fast: what ways through members are computed from."""

    links: Links


@dataclass(frozen=True)
class Blocks:
    """Whether the sender wants super-packets as blocks from now on, rather than as trains."""

    wanted: bool


Frame = Hello | Ping | Pong | Goodbye | Probe | ProbeAck | Signal | Neighbours | Blocks

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
        case Signal():
            kind, body = _KIND_SIGNAL, frame.session_nonce + b"".join(map(_candidate, frame.candidates))
        case Neighbours():
            kind, body = _KIND_NEIGHBOURS, _encode_links(frame.links)
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
    if kind == _KIND_SIGNAL:
        return _decode_signal(body)
    if kind == _KIND_NEIGHBOURS:
        return Neighbours(_decode_links(body))
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


def _candidate(candidate: tuple[int, Endpoint]) -> bytes:
    kind, endpoint = candidate
    address = endpoint.pack()
    return bytes((kind, len(address))) + address


def _decode_signal(body: bytes) -> Signal:
    nonce, at = body[:NONCE_SIZE], NONCE_SIZE
    candidates: list[tuple[int, Endpoint]] = []
    if len(nonce) != NONCE_SIZE:
        raise DecodeError("frame_body")
    while at < len(body):
        size = body[at + 1] if at + 1 < len(body) else 0
        address = body[at + 2 : at + 2 + size]
        if len(address) != size or len(candidates) >= MAX_CANDIDATES:
            raise DecodeError("frame_body")
        try:
            candidates.append((body[at], Endpoint.unpack(address)))
        except DecodeError as error:
            raise DecodeError("frame_body") from error
        at += 2 + size
    return Signal(nonce, tuple(candidates))


def _encode_links(links: Links) -> bytes:
    listed = [_LINK.pack(key, min(0xFFFF, round(rtt * _TENTHS))) for key, rtt in links.round_trips_ms.items()]
    return _LINKS.pack(links.origin, links.sequence & 0xFFFFFFFF, links.hops, len(listed)) + b"".join(listed)


def _decode_links(body: bytes) -> Links:
    if len(body) < _LINKS.size:
        raise DecodeError("frame_body")
    origin, sequence, hops, count = _LINKS.unpack_from(body)
    if count > MAX_LINKS or len(body) != _LINKS.size + count * _LINK.size:
        raise DecodeError("frame_body")
    links = {key: tenths / _TENTHS for key, tenths in _LINK.iter_unpack(body[_LINKS.size :])}
    return Links(origin, sequence, links, hops)
