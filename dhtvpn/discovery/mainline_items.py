"""What lies in BEP 44 items of a topic: one envelope in each, and pages that list the envelopes. Pure.

An item is known by the topic's public key and a *salt*; its value has at most 1,000 octets, bencoded. Salts
come from the topic's keys, so whoever stores one item cannot name the others (docs/adr/0010-mainline.md).
A page is a sealed list of *entries*: the first 8 octets of a slot, and the sequence number of its envelope.
"""

import hashlib
import struct
from collections.abc import Callable, Mapping

import nacl.bindings
import nacl.exceptions

from dhtvpn.errors import DecodeError
from dhtvpn.records.topic import Topic

ENTRY = struct.Struct("!8sQ")
PREFIX_SIZE = 8
"""Octets of a slot that name it in a page and in a salt."""

SALT_SIZE = 16

PAGE_SIZES = (8, 24, 56)
"""Entries that a page is padded to: three, so that its length says little about the number of members."""

PAGE_ENTRIES = PAGE_SIZES[-1]
MAX_PAGES = 3
"""Pages are filled one after the other: 168 slots, more than the 128 that a reader of a topic keeps."""

_NONCE_SIZE = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_TAG_SIZE = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES
_PAGE_LENGTHS = frozenset(_NONCE_SIZE + size * ENTRY.size + _TAG_SIZE for size in PAGE_SIZES)
_NOTHING = bytes(PREFIX_SIZE)
_MAX_U64 = 1 << 64

Entries = dict[bytes, int]
"""Slot prefix (8 octets) to the highest sequence number known."""


def slot_salt(topic: Topic, prefix: bytes) -> bytes:
    """The salt of the envelope in the slot that begins with ``prefix``."""
    return _keyed(topic.slot_key, b"dhtvpn ml slot", prefix, SALT_SIZE).hex().encode()


def page_salt(topic: Topic, number: int) -> bytes:
    """The salt of page ``number``, from 0."""
    return _keyed(topic.slot_key, b"dhtvpn ml page", bytes([number]), SALT_SIZE).hex().encode()


def seal_page(
    topic: Topic, number: int, entries: Mapping[bytes, int], random: Callable[[int], bytes]
) -> bytes:
    """The value of a page. Raises ValueError for more than PAGE_ENTRIES."""
    if len(entries) > PAGE_ENTRIES:
        raise ValueError(f"a page has room for {PAGE_ENTRIES}")
    size = next(size for size in PAGE_SIZES if size >= len(entries))
    plain = b"".join(ENTRY.pack(*entry) for entry in sorted(entries.items())).ljust(size * ENTRY.size, b"\0")
    nonce = random(_NONCE_SIZE)
    return nonce + nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        plain, bytes([number]), nonce, _page_key(topic)
    )


def open_page(topic: Topic, number: int, value: bytes) -> Entries:
    """The entries of a page. Raises DecodeError with reason "size" or "seal"."""
    if len(value) not in _PAGE_LENGTHS:
        raise DecodeError("size")
    try:
        plain = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            value[_NONCE_SIZE:], bytes([number]), value[:_NONCE_SIZE], _page_key(topic)
        )
    except nacl.exceptions.CryptoError as error:
        raise DecodeError("seal") from error
    return {prefix: sequence for prefix, sequence in ENTRY.iter_unpack(plain) if prefix != _NOTHING}


def merge(into: Entries, *others: Mapping[bytes, int], room: int = PAGE_ENTRIES) -> Entries:
    """``into`` with what ``others`` have that is newer or new, as long as there is room; a new dict."""
    merged = dict(into)
    for entries in others:
        for prefix, sequence in entries.items():
            if prefix in merged:
                merged[prefix] = max(merged[prefix], sequence)
            elif len(merged) < room and 0 <= sequence < _MAX_U64:
                merged[prefix] = sequence
    return merged


def _page_key(topic: Topic) -> bytes:
    return _keyed(topic.sealing_key, b"dhtvpn ml seal", b"", 32)


def _keyed(key: bytes, domain: bytes, text: bytes, size: int) -> bytes:
    return hashlib.blake2b(text, digest_size=size, key=key, person=domain).digest()
