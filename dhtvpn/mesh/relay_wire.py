"""What goes to and comes from a relay (docs/protocol/relay.md). Pure.

A relay names members by *relay ids* of 7 bytes. An id is the hash of a *claim*, which members compute from
the network secret, the epoch and a node key; whoever shows a volunteer the claim gets what is sent to the id.

    to and from a volunteer
        d9 | id (7) | data message
        da | id (7) | 0 | own id (7) | handshake message
        db | kind (1) | body: registration, SERVICE_SIZE bytes at most
    inside the session with a member
        2n | n ids (7 each) | data message
        3n | n ids (7 each) | own id (7) | handshake message
    in a block of that session (docs/protocol/blocks.md)
        0 (2) | stride (2) | 2n | n ids (7 each) | data messages side by side

Inside a session the sender names every member on the way: the first id is where whoever receives the frame
sends it next, and it takes that id away. A frame with no id left has arrived. So the ids can only become
fewer: no frame goes in a circle, and none makes more than MAX_IDS steps.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from dhtvpn.errors import DecodeError

DATA_PREFIX: Final = 0xD9
HANDSHAKE_PREFIX: Final = 0xDA
SERVICE_PREFIX: Final = 0xDB

ID_SIZE: Final = 7
CLAIM_SIZE: Final = 16
TOKEN_SIZE: Final = 8
NO_TOKEN: Final = bytes(TOKEN_SIZE)

DATA_HEADER: Final = 1 + ID_SIZE
"""Bytes before a data message: what a relay costs of the path MTU."""
HANDSHAKE_HEADER: Final = 16

DATA_MARK, HANDSHAKE_MARK = 0x20, 0x30
"""High nibble of the first byte of a relay frame: neither an IP version, nor a control frame, nor a train."""
MAX_IDS: Final = 3
"""Members that a relay frame names at most: so three relays are on the longest way, and then the receiver."""
FRAME_HEADER: Final = 1 + MAX_IDS * ID_SIZE
"""Bytes before the datagram in the longest relay frame."""

_RUN: Final = struct.Struct("<HH")
"""In front of a run in a block: 0 where a super-packet has its segment size, and the stride."""
RUN_HEADER: Final = _RUN.size + 1
MAX_MESSAGES: Final = 64
"""Of a run: as many as the kernel sends at once."""

LEAST_STRIDE: Final = 32
"""Bytes of the shortest data message: so that a block of a few octets does not become many datagrams."""

SERVICE_SIZE: Final = 2 + CLAIM_SIZE + TOKEN_SIZE
"""Bytes of a Register, the longest; no answer is longer than what it answers."""

_REGISTER, _TOKEN, _REGISTERED, _REFUSED, _NOT_HERE, _STRANGER = range(1, 7)
_LEASE = struct.Struct("!H")


@dataclass(frozen=True)
class Register:
    """Member to volunteer: what comes for the id of ``claim`` is mine. NO_TOKEN asks for a token."""

    claim: bytes
    token: bytes


@dataclass(frozen=True)
class Token:
    """Volunteer to member: repeat your Register with this token, which proves your address."""

    token: bytes


@dataclass(frozen=True)
class Registered:
    """Volunteer to member: ``relay_id`` is yours for ``lease_s`` seconds from now."""

    relay_id: bytes
    lease_s: int


@dataclass(frozen=True)
class Refused:
    """Volunteer to member: no room for another registration from where you are."""

    relay_id: bytes


@dataclass(frozen=True)
class NotHere:
    """Volunteer to member: nobody has registered ``relay_id``; your datagram was dropped."""

    relay_id: bytes


@dataclass(frozen=True)
class Stranger:
    """Volunteer to whoever sent a datagram to be relayed: you are not registered; register first."""


@dataclass(frozen=True, slots=True)
class RelayRun:
    """Relay frames with one header."""

    header: bytes
    """The mark, and the ids of where they are still to go."""
    messages: bytes | memoryview
    """What they carry, side by side."""
    stride: int
    """Bytes of each message; the last may be shorter."""

    @property
    def count(self) -> int:
        """How many frames these are."""
        return -(-len(self.messages) // self.stride)

    @property
    def octets(self) -> int:
        """Bytes of the frames one by one."""
        return len(self.messages) + self.count * len(self.header)

    @property
    def frames(self) -> list[bytes]:
        """The frames one by one."""
        header, messages, stride = self.header, self.messages, self.stride
        return [b"".join((header, messages[at : at + stride])) for at in range(0, len(messages), stride)]

    @property
    def onward(self) -> bytes | None:
        """The id of the member that they go to next; None: here."""
        return self.header[1 : 1 + ID_SIZE] or None

    def one_step(self) -> "RelayRun":
        """As that member is to get them."""
        return replace(self, header=bytes((self.header[0] - 1,)) + self.header[1 + ID_SIZE :])

    def halves(self) -> tuple["RelayRun", "RelayRun"]:
        """The same as two runs, of at least two frames."""
        at = self.count // 2 * self.stride
        return replace(self, messages=self.messages[:at]), replace(self, messages=self.messages[at:])

    def plaintext(self) -> bytes:
        """What a block with these frames, data messages, holds."""
        return b"".join((_RUN.pack(0, self.stride), self.header, self.messages))


Service = Register | Token | Registered | Refused | NotHere | Stranger


def relay_id(claim: bytes) -> bytes:
    """The id that belongs to ``claim``: BLAKE2b, 7 bytes."""
    return hashlib.blake2b(claim, digest_size=ID_SIZE, person=b"dhtvpn relay id").digest()


def data_header(identity: bytes) -> bytes:
    """What stands before a data message to the member ``identity`` on its way to a volunteer."""
    return bytes((DATA_PREFIX,)) + identity


def wrap_handshake(identity: bytes, own: bytes, message: bytes) -> bytes:
    """A handshake message to the member ``identity`` by way of a volunteer; it is answered to ``own``."""
    return b"".join((bytes((HANDSHAKE_PREFIX,)), identity, b"\0", own, message))


def unwrap_handshake(datagram: bytes) -> tuple[bytes, bytes, bytes]:
    """(for whom, from whom, message) of what :func:`wrap_handshake` made; the first byte is not looked at.

    Raises DecodeError("relay_length").
    """
    if len(datagram) <= HANDSHAKE_HEADER:
        raise DecodeError("relay_length")
    return datagram[1:8], datagram[9:16], datagram[16:]


def frame_header(mark: int, ids: Sequence[bytes]) -> bytes:
    """What stands first in a relay frame for the last of ``ids`` by way of the others."""
    return bytes((mark | len(ids),)) + b"".join(ids)


def next_id(frame: bytes) -> bytes | None:
    """Where a relay frame goes next; None: here. Raises DecodeError("relay_length", "relay_hops")."""
    count = frame[0] & 0x0F
    if count > MAX_IDS:
        raise DecodeError("relay_hops")
    if len(frame) <= header_size(frame):
        raise DecodeError("relay_length")
    return frame[1:8] if count else None


def header_size(frame: bytes | memoryview) -> int:
    """Bytes of a relay frame, not empty, before what it carries."""
    return 1 + (frame[0] & 0x0F) * ID_SIZE


def runs_of(frames: Sequence[bytes]) -> list[RelayRun]:
    """Relay frames that have the header of the first, in runs, in order."""
    size, runs, start = header_size(frames[0]), [], 0
    while start < len(frames):
        length, end = len(frames[start]), start + 1
        while end < len(frames) and len(frames[end - 1]) == length >= len(frames[end]):
            end += 1
        messages = b"".join([frame[size:] for frame in frames[start:end]])
        runs.append(RelayRun(frames[start][:size], messages, length - size))
        start = end
    return runs


def run_in(plaintext: memoryview) -> RelayRun:
    """What a block of relayed messages holds: a run of data messages. Raises DecodeError("relay_length",
    "relay_hops")."""
    if len(plaintext) <= RUN_HEADER:
        raise DecodeError("relay_length")
    stride, mark = _RUN.unpack_from(plaintext)[1], plaintext[_RUN.size]
    if mark & 0x0F > MAX_IDS or mark & 0xF0 != DATA_MARK:
        raise DecodeError("relay_hops")
    start = _RUN.size + header_size(plaintext[_RUN.size :])
    run = RelayRun(bytes(plaintext[_RUN.size : start]), plaintext[start:], stride)
    if len(plaintext) <= start or stride < LEAST_STRIDE or run.count > MAX_MESSAGES:
        raise DecodeError("relay_length")
    return run


def arrived_handshake(frame: bytes) -> tuple[bytes, bytes]:
    """(from whom, the message) of a relay frame that has arrived. A session pads what goes through it: what
    is behind the message is cut off. Raises DecodeError("relay_length")."""
    message = frame[1 + ID_SIZE :]
    size = _HANDSHAKES.get(message[:1])
    if size is None or len(message) < size:
        raise DecodeError("relay_length")
    return frame[1 : 1 + ID_SIZE], message[:size]


def encode_service(message: Service) -> bytes:
    """The datagram of ``message``, prefix included."""
    match message:
        case Register():
            kind, body = _REGISTER, message.claim + message.token
        case Token():
            kind, body = _TOKEN, message.token
        case Registered():
            kind, body = _REGISTERED, message.relay_id + _LEASE.pack(message.lease_s)
        case Refused():
            kind, body = _REFUSED, message.relay_id
        case NotHere():
            kind, body = _NOT_HERE, message.relay_id
        case Stranger():
            kind, body = _STRANGER, b""
    return bytes((SERVICE_PREFIX, kind)) + body


def decode_service(datagram: bytes) -> Service:
    """The reverse of :func:`encode_service`. Raises DecodeError("relay_length", "relay_kind")."""
    if len(datagram) < 2:
        raise DecodeError("relay_length")
    kind, body = datagram[1], datagram[2:]
    if kind not in _SIZES:
        raise DecodeError("relay_kind")
    if len(body) != _SIZES[kind]:
        raise DecodeError("relay_length")
    match kind:
        case 1:
            return Register(body[:CLAIM_SIZE], body[CLAIM_SIZE:])
        case 2:
            return Token(body)
        case 3:
            return Registered(body[:ID_SIZE], _LEASE.unpack(body[ID_SIZE:])[0])
        case 4:
            return Refused(body)
        case 5:
            return NotHere(body)
        case _:
            return Stranger()


_HANDSHAKES: Final = {b"\x01": 148, b"\x02": 92, b"\x03": 64}
"""Bytes of a handshake message by its first (docs/protocol/tunnel.md)."""

_SIZES: Final = {
    _REGISTER: CLAIM_SIZE + TOKEN_SIZE,
    _TOKEN: TOKEN_SIZE,
    _REGISTERED: ID_SIZE + _LEASE.size,
    _REFUSED: ID_SIZE,
    _NOT_HERE: ID_SIZE,
    _STRANGER: 0,
}
