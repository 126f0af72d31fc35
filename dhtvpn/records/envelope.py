"""The envelope: a record as a storing node sees it, sealed and signed (docs/protocol/record.md).

Outside, a CBOR array: [1, topic public key, slot, sequence, expires, ciphertext, topic signature].
Inside the ciphertext, after opening: length of the record (2 bytes), member signature (64), record,
zeros up to one of ``BUCKETS``. The topic's key signs for storing nodes, the node's key for members;
both signatures and the seal cover topic, slot, sequence and expiry, so none of them can be moved.
"""

import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import nacl.bindings
import nacl.exceptions

from dhtvpn import identity as identities
from dhtvpn.errors import DecodeError
from dhtvpn.identity import Identity
from dhtvpn.records import record as records
from dhtvpn.records import strict_cbor
from dhtvpn.records.epochs import EPOCH_S, OVERLAP_S
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.topic import SLOT_SIZE, Topic, dht_key_of

ENVELOPE_VERSION = 1
MAX_ENVELOPE = 900
"""Bytes: fits one datagram on every path that carries IPv6, and BEP 44's 1000 bytes."""
MAX_LIFETIME_S = 2 * EPOCH_S + 2 * OVERLAP_S
"""How far ahead an expiry may lie: more than any that ``epochs.expiry_of`` gives, published ten minutes
early and seen by a storing node whose clock is ten minutes slow."""
BUCKETS = (256, 448, 704)
"""Sizes of the padded plaintext: three, so that the size says little about names and candidates."""

_NONCE_SIZE = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_TAG_SIZE = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES
_CIPHERTEXT_SIZES = tuple(_NONCE_SIZE + bucket + _TAG_SIZE for bucket in BUCKETS)
_PLACE = struct.Struct("!32s16sQQ")
_INNER = struct.Struct("!H64s")
_ENVELOPE_DOMAIN = b"dhtvpn envelope v1\0"
_RECORD_DOMAIN = b"dhtvpn record v1\0"
_MAX_U64 = 1 << 64
MAX_SEQUENCE = 1 << 63
"""Sequence numbers of members are below this; on the wire one has 64 bits, with its topic's shift."""


@dataclass(frozen=True)
class Envelope:
    """What a storing node sees of a record, after its checks."""

    topic_public_key: bytes
    slot: bytes
    """Blinded writer id, 16 bytes: one envelope is kept per slot, the one with the highest sequence."""
    sequence: int
    expires: int
    """Unix seconds."""
    ciphertext: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def place(self) -> bytes:
        """Topic, slot, sequence and expiry in 64 bytes: what every signature and the seal cover."""
        return _PLACE.pack(self.topic_public_key, self.slot, self.sequence, self.expires)


@dataclass(frozen=True)
class OpenedRecord:
    """A record that has passed every check of a member."""

    record: EndpointRecord
    sequence: int
    """The member's own, without the topic's shift: comparable over all topics and epochs."""
    expires: int
    """Unix seconds."""


def seal(  # noqa: PLR0917 - the order of the fields in the envelope
    record: EndpointRecord,
    topic: Topic,
    identity: Identity,
    sequence: int,
    expires: int,
    random_bytes: Callable[[int], bytes],
) -> bytes:
    """The envelope of ``record`` under ``topic``, at most MAX_ENVELOPE bytes.

    ``sequence`` must be higher than in every envelope of this node with another content. Raises
    ValueError when the record is not that of ``identity`` or a number is out of its range.
    """
    if record.node_key != identity.node_key:
        raise ValueError("a node seals its own record only")
    if not (0 <= sequence < MAX_SEQUENCE and 0 <= expires < _MAX_U64):
        raise ValueError("a sequence has 63 bits, an expiry 64")
    sequence += topic.sequence_shift(identity.node_key)
    slot = topic.slot(identity.node_key)
    place = _PLACE.pack(topic.public_key, slot, sequence, expires)
    content = records.encode(record)
    inner = _INNER.pack(len(content), identity.sign(_RECORD_DOMAIN + place + content)) + content
    bucket = next(size for size in BUCKETS if size >= len(inner))
    nonce = random_bytes(_NONCE_SIZE)
    ciphertext = nonce + nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        inner.ljust(bucket, b"\0"), place, nonce, topic.sealing_key
    )
    signature = topic.signing_key.sign(_ENVELOPE_DOMAIN + place + ciphertext).signature
    return strict_cbor.encode(
        [ENVELOPE_VERSION, topic.public_key, slot, sequence, expires, ciphertext, signature]
    )


def inspect(envelope: bytes, dht_key: bytes, unix_time: float) -> Envelope:
    """Everything that a storing node, or anyone without the network secret, can check.

    Raises DecodeError with reason "size", "format", "topic" (the key is not the one that ``dht_key``
    is the hash of), "expired", "horizon" (expiry further ahead than MAX_LIFETIME_S) or "signature";
    the cheap checks come first.
    """
    if len(envelope) > MAX_ENVELOPE:
        raise DecodeError("size", f"{len(envelope)} bytes")
    found = _parse(strict_cbor.decode(envelope))
    if not hmac.compare_digest(dht_key_of(found.topic_public_key), dht_key):
        raise DecodeError("topic")
    if found.expires <= unix_time:
        raise DecodeError("expired")
    if found.expires > unix_time + MAX_LIFETIME_S:
        raise DecodeError("horizon")
    identities.verify(
        found.topic_public_key, _ENVELOPE_DOMAIN + found.place + found.ciphertext, found.signature
    )
    return found


def open_record(envelope: bytes, topic: Topic, unix_time: float) -> OpenedRecord:
    """The record inside ``envelope``, checked as a member can.

    Raises DecodeError with a reason of :func:`inspect`, or "seal" (cannot be opened), "format",
    "slot" (it is another writer's) or "member_signature".
    """
    found = inspect(envelope, topic.dht_key, unix_time)
    nonce, sealed = found.ciphertext[:_NONCE_SIZE], found.ciphertext[_NONCE_SIZE:]
    try:
        inner = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed, found.place, nonce, topic.sealing_key
        )
    except nacl.exceptions.CryptoError as error:
        raise DecodeError("seal") from error
    length, signature = _INNER.unpack_from(inner)
    content, padding = inner[_INNER.size : _INNER.size + length], inner[_INNER.size + length :]
    if len(content) != length or padding.strip(b"\0"):
        raise DecodeError("format", "padding")
    record = records.decode(content)
    if not hmac.compare_digest(topic.slot(record.node_key), found.slot):
        raise DecodeError("slot")
    try:
        identities.verify(record.node_key, _RECORD_DOMAIN + found.place + content, signature)
    except DecodeError as error:
        raise DecodeError("member_signature") from error
    sequence = found.sequence - topic.sequence_shift(record.node_key)
    if not 0 <= sequence < MAX_SEQUENCE:
        raise DecodeError("format", "sequence")
    return OpenedRecord(record, sequence, found.expires)


def _parse(fields: list[Any]) -> Envelope:
    """Types and lengths of the outer array. Raises DecodeError("format")."""
    kinds = (int, bytes, bytes, int, int, bytes, bytes)
    if tuple(type(value) for value in fields) != kinds:
        raise DecodeError("format", "field of another type")
    version, public_key, slot, sequence, expires, ciphertext, signature = fields
    if version != ENVELOPE_VERSION:
        raise DecodeError("format", "version")
    if (len(public_key), len(slot), len(signature)) != (32, SLOT_SIZE, identities.SIGNATURE_SIZE):
        raise DecodeError("format", "field of another length")
    if len(ciphertext) not in _CIPHERTEXT_SIZES:
        raise DecodeError("format", "ciphertext of another length")
    return Envelope(public_key, slot, sequence, expires, ciphertext, signature)
