"""Data messages of one peer (type 4, paper section 5.4.6): sealed and opened in the engine.

    offset  size
    0       1     type, 4
    1       3     zero
    4       4     receiver index, little-endian
    8       8     counter, little-endian
    16      n+16  the padded packet, sealed with ChaCha20-Poly1305, nonce = 4 zero bytes and the counter

This is the hot path: one call per packet, no allocation beyond the datagram, and no clock: the caller reads
it once per batch and passes ``now``.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from dhtvpn.errors import DecodeError
from dhtvpn.wireguard.constants import (
    PADDING_UNIT,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    TAG_SIZE,
    TYPE_DATA,
)
from dhtvpn.wireguard.keypair import Keypair, KeypairSlots
from dhtvpn.wireguard.replay import ReplayWindow

HEADER: Final = Struct("<IIQ")
HEADER_SIZE: Final = HEADER.size
OVERHEAD: Final = HEADER_SIZE + TAG_SIZE
"""Bytes that a data message adds to its padded plaintext: 32."""

_NONCE: Final = Struct("<4xQ")
_PADDING: Final = tuple(bytes(-size % PADDING_UNIT) for size in range(PADDING_UNIT))


def receiver_index(datagram: bytes | bytearray | memoryview) -> int | None:
    """Whom a datagram is for; None when it is no data message."""
    if len(datagram) < OVERHEAD:
        return None
    kind, index, _ = HEADER.unpack_from(datagram)
    return index if kind == TYPE_DATA else None


class _Session:
    """A keypair at work: ciphers, send counter, replay window."""

    __slots__ = ("counter", "expires", "initiator", "local_index", "open", "remote_index", "replay", "seal")

    def __init__(self, keypair: Keypair) -> None:
        self.local_index = keypair.local_index
        self.remote_index = keypair.remote_index
        self.initiator = keypair.initiator
        self.expires = keypair.created_at + REJECT_AFTER_TIME
        self.counter = 0
        self.replay = ReplayWindow()
        self.seal = ChaCha20Poly1305(keypair.send_key).encrypt
        self.open = ChaCha20Poly1305(keypair.receive_key).decrypt


class PeerTransport:
    """Seals and opens the data messages of one peer.

    ``mtu`` is the device's, in bytes: padding never makes a packet longer than it. ``on_confirmed`` is
    called with the local index when ``next`` becomes current (KeypairConfirmed for the control process).
    """

    def __init__(self, mtu: int, on_confirmed: Callable[[int], None] | None = None) -> None:
        self.mtu = mtu
        self._on_confirmed = on_confirmed
        self._slots: KeypairSlots[_Session] = KeypairSlots()
        self._by_index: dict[int, _Session] = {}

    def install(self, keypair: Keypair) -> list[int]:
        """Take a keypair of a completed handshake; returns the local indices that are void now."""
        session = _Session(keypair)
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

    def seal(self, plaintext: bytes, now: float) -> bytes | None:
        """A whole datagram with ``plaintext`` in it (empty: a keepalive). None when there is no keypair
        that may be used: the peer needs a handshake. No counter is ever used twice."""
        session = self._slots.current
        if session is None or now >= session.expires:
            return None
        counter = session.counter
        if counter >= REJECT_AFTER_MESSAGES:
            return None
        session.counter = counter + 1
        size = len(plaintext)
        if size & 15 and size < self.mtu:
            padding = _PADDING[size & 15]
            plaintext = b"".join((plaintext, padding[: self.mtu - size]))
        header = HEADER.pack(TYPE_DATA, session.remote_index, counter)
        return header + session.seal(_NONCE.pack(counter), plaintext, None)

    def open(self, datagram: bytes, now: float) -> bytes:
        """The plaintext of a datagram, with its padding (empty: a keepalive). Each is delivered once.

        Raises DecodeError "data_length", "data_type", "data_index", "data_expired", "data_tag" or
        "data_replay"; nothing of the peer's state changes then.
        """
        if len(datagram) < OVERHEAD:
            raise DecodeError("data_length")
        kind, index, counter = HEADER.unpack_from(datagram)
        session = self._by_index.get(index)
        if session is None or kind != TYPE_DATA:
            raise DecodeError("data_index" if kind == TYPE_DATA else "data_type")
        if now >= session.expires:
            raise DecodeError("data_expired")
        try:
            plaintext = session.open(_NONCE.pack(counter), datagram[HEADER_SIZE:], None)
        except InvalidTag:
            raise DecodeError("data_tag") from None
        if not session.replay.accept(counter):
            raise DecodeError("data_replay")
        if session is self._slots.next:
            self._confirm(session)
        return plaintext

    def _confirm(self, session: _Session) -> None:
        evicted = self._slots.confirm(session.local_index)
        self._forget(evicted or [])
        if self._on_confirmed is not None:
            self._on_confirmed(session.local_index)

    def _forget(self, sessions: list[_Session]) -> None:
        for session in sessions:
            self._by_index.pop(session.local_index, None)
