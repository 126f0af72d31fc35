"""The sealed datagram by which members of one network ask and tell each other (docs/protocol/lan.md).

One form for the question, the answer, the announcement and the farewell, always DATAGRAM_SIZE octets and
sealed as a whole: to who does not know the network secret all of them are the same random octets.

    0     24    nonce, random
    24    1168  XChaCha20-Poly1305 of the plaintext under the key of the sender's epoch
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from dhtvpn.discovery.directory import KEY_LENGTH, MAX_ENVELOPE, SLOT_LENGTH
from dhtvpn.errors import DecodeError

VERSION: Final = 1
NONCE_SIZE: Final = 24
TAG_SIZE: Final = 16
PLAINTEXT_SIZE: Final = 1152
DATAGRAM_SIZE: Final = NONCE_SIZE + PLAINTEXT_SIZE + TAG_SIZE
"""1,192 octets: with the headers of UDP and IPv6 1,240, which every IPv6 link carries whole (RFC 8200
section 5 asks for 1,280)."""

MAX_TOPICS: Final = 8
"""Topics asked for in one datagram: the roster's in two epochs, and a few members looked up."""

MAX_KNOWN: Final = 32
MAX_ENVELOPES: Final = 8
KNOWN_SIZE: Final = SLOT_LENGTH + 8

_HEAD: Final = 1 + 8
_ENTRY: Final = KEY_LENGTH + 2


@dataclass(frozen=True)
class Note:
    """What one datagram says.

    ``asked``: dht_keys whose members shall answer. ``known``: (slot, sequence) of envelopes that the sender
    has and does not want again. ``envelopes``: (dht_key, envelope), the sender's own.
    """

    unix_time: int
    asked: tuple[bytes, ...] = ()
    known: tuple[tuple[bytes, int], ...] = ()
    envelopes: tuple[tuple[bytes, bytes], ...] = field(default=())


def epoch_key(secret: bytes, epoch: int) -> bytes:
    """The 32-octet key of one epoch of the network with the 32-octet ``secret``."""
    return hashlib.blake2b(
        epoch.to_bytes(8, "big"), digest_size=32, key=secret, person=b"dhtvpn lan seal"
    ).digest()


def seal(note: Note, key: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
    """The datagram that says ``note``; the caller has seen to it that it fits (:func:`pack`)."""
    plaintext = _encode(note)
    nonce = random_bytes(NONCE_SIZE)
    padded = plaintext + bytes(PLAINTEXT_SIZE - len(plaintext))
    return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(padded, None, nonce, key)


def unseal(datagram: bytes, keys: Iterable[bytes]) -> Note:
    """Try ``keys`` in turn. Raises DecodeError: "size", "seal" (not of our network), "version", "format"."""
    if len(datagram) != DATAGRAM_SIZE:
        raise DecodeError("size")
    nonce, sealed = datagram[:NONCE_SIZE], datagram[NONCE_SIZE:]
    for key in keys:
        try:
            plaintext = crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, None, nonce, key)
        except CryptoError:
            continue
        return _decode(plaintext)
    raise DecodeError("seal")


def pack(
    unix_time: int,
    asked: Sequence[bytes],
    known: Sequence[tuple[bytes, int]],
    envelopes: Sequence[tuple[bytes, bytes]],
) -> list[Note]:
    """As few notes as hold all of ``asked`` and ``envelopes``; of ``known`` what room is left for.

    The question comes with the first envelopes in one note.
    """
    notes: list[Note] = []
    topics, left = list(asked), list(envelopes)
    while topics or left or not notes:
        now_asked = topics[:MAX_TOPICS]
        del topics[:MAX_TOPICS]
        room = PLAINTEXT_SIZE - _HEAD - 3 - KEY_LENGTH * len(now_asked)
        told: list[tuple[bytes, bytes]] = []
        while left and len(told) < MAX_ENVELOPES and (size := _ENTRY + len(left[0][1])) <= room:
            room -= size
            told.append(left.pop(0))
        now_known = tuple(known[: min(MAX_KNOWN, room // KNOWN_SIZE)]) if now_asked else ()
        notes.append(Note(unix_time, tuple(now_asked), now_known, tuple(told)))
    return notes


def _encode(note: Note) -> bytes:
    parts = [bytes([VERSION]), note.unix_time.to_bytes(8, "big"), bytes([len(note.asked)]), *note.asked]
    parts.append(bytes([len(note.known)]))
    parts += [slot + sequence.to_bytes(8, "big") for slot, sequence in note.known]
    parts.append(bytes([len(note.envelopes)]))
    for dht_key, envelope in note.envelopes:
        parts += [dht_key, len(envelope).to_bytes(2, "big"), envelope]
    return b"".join(parts)


def _decode(plaintext: bytes) -> Note:
    reader = _Reader(plaintext)
    if reader.number(1) != VERSION:
        raise DecodeError("version")
    unix_time = reader.number(8)
    asked = tuple(reader.take(KEY_LENGTH) for _ in range(reader.count(MAX_TOPICS)))
    known = tuple((reader.take(SLOT_LENGTH), reader.number(8)) for _ in range(reader.count(MAX_KNOWN)))
    envelopes = []
    for _ in range(reader.count(MAX_ENVELOPES)):
        dht_key, length = reader.take(KEY_LENGTH), reader.number(2)
        if not 0 < length <= MAX_ENVELOPE:
            raise DecodeError("format")
        envelopes.append((dht_key, reader.take(length)))
    if any(reader.rest()):
        raise DecodeError("format")
    return Note(unix_time, asked, known, tuple(envelopes))


class _Reader:
    """Takes octets from the front. Raises DecodeError("format") past the end."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def take(self, length: int) -> bytes:
        taken = self._octets[self._at : self._at + length]
        if len(taken) != length:
            raise DecodeError("format")
        self._at += length
        return taken

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def count(self, most: int) -> int:
        number = self.number(1)
        if number > most:
            raise DecodeError("format")
        return number

    def rest(self) -> bytes:
        return self._octets[self._at :]
