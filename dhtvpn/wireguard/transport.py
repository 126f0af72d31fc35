"""Data messages of one peer (type 4, paper section 5.4.6; type 5, ours): sealed and opened in the engine.

    offset  size
    0       1     type: 4 is sealed with ChaCha20-Poly1305, 5 with AES-256-GCM
    1       3     zero
    4       4     receiver index, little-endian
    8       8     counter, little-endian
    16      n+16  the padded packet, sealed, nonce = 4 zero bytes and the counter

Both types of a keypair share one counter and one replay window; each has keys of its own. Type 5 is sent to
a peer that said that it wants it, and opened from any (docs/protocol/tunnel.md). Types 6 and 7 are blocks
(docs/protocol/blocks.md), sealed with the ciphers of 4 and 5, with a counter of the same row for each.

This is the hot path: :class:`PeerTransport` seals and opens packet by packet; who has many at once takes the
:class:`Session` and loops over its ciphers itself. No clock: the caller reads it once per batch.
"""

from collections.abc import Callable
from hashlib import blake2s
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from dhtvpn.errors import DecodeError
from dhtvpn.wireguard.constants import (
    PADDING_UNIT,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REKEY_AFTER_MESSAGES,
    TAG_SIZE,
    TYPE_BLOCK,
    TYPE_BLOCK_AES,
    TYPE_DATA,
    TYPE_DATA_AES,
)
from dhtvpn.wireguard.keypair import Keypair, KeypairSlots
from dhtvpn.wireguard.replay import ReplayWindow

HEADER: Final = Struct("<IIQ")
HEADER_SIZE: Final = HEADER.size
OVERHEAD: Final = HEADER_SIZE + TAG_SIZE
"""Bytes that a data message adds to its padded plaintext: 32."""

NONCE: Final = Struct("<4xQ")
_AES_KEY_LABEL: Final = b"dhtvpn type 5 AES-256-GCM"
_TYPES: Final = (TYPE_DATA, TYPE_DATA_AES)
_PADDING: Final = tuple(bytes(-size % PADDING_UNIT) for size in range(PADDING_UNIT))


def receiver_index(datagram: bytes | bytearray | memoryview) -> int | None:
    """Whom a datagram is for; None when it is no data message."""
    if len(datagram) < OVERHEAD:
        return None
    kind, index, _ = HEADER.unpack_from(datagram)
    return index if kind in _TYPES else None


def aes_key(key: bytes) -> bytes:
    """The key of type 5 from that of type 4: MAC(key, label) with BLAKE2s, 32 bytes."""
    return blake2s(_AES_KEY_LABEL, key=key).digest()


class Session:
    """A keypair at work: ciphers by message type, send counter, replay window.

    ``seal_into`` and ``open_into`` map a message type, blocks included, to cryptography's ``encrypt_into``
    and ``decrypt_into``: (nonce, data, associated data, destination), the latter raising InvalidTag.
    """

    __slots__ = (
        "counter",
        "expires",
        "initiator",
        "local_index",
        "open",
        "open_into",
        "remote_index",
        "replay",
        "seal",
        "seal_into",
    )

    def __init__(self, keypair: Keypair) -> None:
        self.local_index = keypair.local_index
        self.remote_index = keypair.remote_index
        self.initiator = keypair.initiator
        self.expires = keypair.created_at + REJECT_AFTER_TIME
        self.counter = 0
        self.replay = ReplayWindow()
        sending: dict[int, AESGCM | ChaCha20Poly1305] = {
            TYPE_DATA: ChaCha20Poly1305(keypair.send_key),
            TYPE_DATA_AES: AESGCM(aes_key(keypair.send_key)),
        }
        receiving: dict[int, AESGCM | ChaCha20Poly1305] = {
            TYPE_DATA: ChaCha20Poly1305(keypair.receive_key),
            TYPE_DATA_AES: AESGCM(aes_key(keypair.receive_key)),
        }
        self.seal = {kind: cipher.encrypt for kind, cipher in sending.items()}
        self.seal_into = {kind: cipher.encrypt_into for kind, cipher in sending.items()}
        self.open = {kind: cipher.decrypt for kind, cipher in receiving.items()}
        self.open_into = {kind: cipher.decrypt_into for kind, cipher in receiving.items()}
        for block, data in ((TYPE_BLOCK, TYPE_DATA), (TYPE_BLOCK_AES, TYPE_DATA_AES)):
            self.seal_into[block], self.open_into[block] = self.seal_into[data], self.open_into[data]

    def reserve(self, count: int) -> int | None:
        """Take ``count`` consecutive counters and tell the first; None where the keypair is used up.

        No counter is ever given out twice. What does not fit ends the keypair, so that a handshake follows.
        """
        first = self.counter
        if first + count > REJECT_AFTER_MESSAGES:
            self.counter = REJECT_AFTER_MESSAGES
            return None
        self.counter = first + count
        return first


class PeerTransport:
    """Seals and opens the data messages of one peer.

    ``mtu`` is the device's, in bytes: padding never makes a packet longer than it. ``message_type`` is what
    is sent: TYPE_DATA, or TYPE_DATA_AES where the peer wants that. ``on_confirmed`` is called with the local
    index when ``next`` becomes current (KeypairConfirmed for the control process).
    """

    def __init__(self, mtu: int, on_confirmed: Callable[[int], None] | None = None) -> None:
        self.mtu = mtu
        self.message_type = TYPE_DATA
        self._on_confirmed = on_confirmed
        self._slots: KeypairSlots[Session] = KeypairSlots()
        self._by_index: dict[int, Session] = {}

    def install(self, keypair: Keypair) -> list[int]:
        """Take a keypair of a completed handshake; returns the local indices that are void now."""
        session = Session(keypair)
        evicted = self._slots.install(session)
        self._forget(evicted)
        self._by_index[session.local_index] = session
        return [old.local_index for old in evicted]

    def erase(self) -> list[int]:
        """Forget every keypair; returns their local indices."""
        self._by_index.clear()
        return [session.local_index for session in self._slots.clear()]

    def indices(self) -> list[int]:
        """The local indices that this peer's datagrams may carry now."""
        return list(self._by_index)

    def ready(self, now: float) -> bool:
        """Whether :meth:`seal` has a keypair to seal with."""
        session = self._slots.current
        return session is not None and now < session.expires and session.counter < REJECT_AFTER_MESSAGES

    def seal(self, plaintext: bytes | memoryview, now: float) -> bytes | None:
        """A whole datagram with ``plaintext`` in it (empty: a keepalive). None when there is no keypair
        that may be used: the peer needs a handshake. No counter is ever used twice."""
        session = self._slots.current
        if session is None or now >= session.expires:
            return None
        return self.seal_with(session, plaintext)

    def seal_with(self, session: Session, plaintext: bytes | memoryview) -> bytes | None:
        """:meth:`seal` with what :meth:`sending` gave; None where it is used up."""
        counter = session.counter
        if counter >= REJECT_AFTER_MESSAGES:
            return None
        session.counter = counter + 1
        kind = self.message_type
        size = len(plaintext)
        if size & 15 and size < self.mtu:
            padding = _PADDING[size & 15]
            plaintext = b"".join((plaintext, padding[: self.mtu - size]))
        header = HEADER.pack(kind, session.remote_index, counter)
        return header + session.seal[kind](NONCE.pack(counter), plaintext, None)

    def sending(self, now: float) -> Session | None:
        """The session that :meth:`seal` would use, for whoever seals a batch; None: a handshake is needed."""
        return self._slots.current if self.ready(now) else None

    def rekey_due(self) -> bool:
        """Whether the current keypair, made by us as the initiator, has sealed REKEY_AFTER_MESSAGES."""
        session = self._slots.current
        return session is not None and session.initiator and session.counter >= REKEY_AFTER_MESSAGES

    def receiving(self, index: int, now: float) -> Session | None:
        """The session with our ``index``, for whoever opens a batch; None where there is none that may be
        used. :meth:`open` the batch's first message, so that the session is confirmed."""
        session = self._by_index.get(index)
        return session if session is not None and now < session.expires else None

    def open(self, datagram: bytes, now: float) -> bytes:
        """The plaintext of a datagram, with its padding (empty: a keepalive). Each is delivered once.

        Raises DecodeError "data_length", "data_type", "data_index", "data_expired", "data_tag" or
        "data_replay"; nothing of the peer's state changes then.
        """
        if len(datagram) < OVERHEAD:
            raise DecodeError("data_length")
        kind, index, counter = HEADER.unpack_from(datagram)
        session = self._by_index.get(index)
        if session is None or kind not in _TYPES:
            raise DecodeError("data_index" if kind in _TYPES else "data_type")
        if now >= session.expires:
            raise DecodeError("data_expired")
        try:
            plaintext = session.open[kind](NONCE.pack(counter), datagram[HEADER_SIZE:], None)
        except InvalidTag:
            raise DecodeError("data_tag") from None
        self.accept(session, counter)
        return plaintext

    def accept(self, session: Session, counter: int) -> None:
        """A message with ``counter`` was authentic. Raises DecodeError "data_replay" where it came before."""
        if not session.replay.accept(counter):
            raise DecodeError("data_replay")
        if session is self._slots.next:
            self._confirm(session)

    def _confirm(self, session: Session) -> None:
        evicted = self._slots.confirm(session.local_index)
        self._forget(evicted or [])
        if self._on_confirmed is not None:
            self._on_confirmed(session.local_index)

    def _forget(self, sessions: list[Session]) -> None:
        for session in sessions:
            self._by_index.pop(session.local_index, None)
