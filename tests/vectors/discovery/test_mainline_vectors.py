"""Salts and pages of docs/protocol/mainline.md, octet by octet."""

import hashlib
import json
from pathlib import Path

import nacl.bindings
import pytest

from dhtvpn.discovery import mainline_items
from dhtvpn.records.topic import Topic

VECTORS = json.loads((Path(__file__).parent / "mainline_items.json").read_text(encoding="utf-8"))
TOPIC = Topic.derive(bytes.fromhex(VECTORS["secret"]), VECTORS["epoch"])


def keyed(key: bytes, person: bytes, text: bytes, size: int) -> bytes:
    return hashlib.blake2b(text, digest_size=size, key=key, person=person).digest()


def test_salts():
    assert TOPIC.public_key.hex() == VECTORS["public_key"]
    for prefix, salt in VECTORS["slot_salts"].items():
        octets = bytes.fromhex(prefix)
        assert mainline_items.slot_salt(TOPIC, octets) == salt.encode()
        assert keyed(TOPIC.slot_key, b"dhtvpn ml slot", octets, 16).hex() == salt
    for number, salt in enumerate(VECTORS["page_salts"]):
        assert mainline_items.page_salt(TOPIC, number) == salt.encode()
        assert keyed(TOPIC.slot_key, b"dhtvpn ml page", bytes([number]), 16).hex() == salt


@pytest.mark.parametrize("vector", VECTORS["pages"], ids=lambda v: f"{len(v['entries'])} entries")
def test_pages(vector):
    number, nonce, value = (
        vector["number"],
        bytes.fromhex(vector["nonce"]),
        bytes.fromhex(vector["value"]),
    )
    entries = {bytes.fromhex(prefix): sequence for prefix, sequence in vector["entries"].items()}
    assert mainline_items.seal_page(TOPIC, number, entries, lambda n: nonce[:n]) == value
    assert mainline_items.open_page(TOPIC, number, value) == entries
    key = keyed(TOPIC.sealing_key, b"dhtvpn ml seal", b"", 32)
    assert key.hex() == VECTORS["page_key"] and value[:24] == nonce
    plain = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(value[24:], bytes([number]), nonce, key)
    listed = b"".join(prefix + entries[prefix].to_bytes(8, "big") for prefix in sorted(entries))
    assert plain == listed + bytes(len(plain) - len(listed))
    assert len(value) == 40 + 16 * (8 if len(entries) <= 8 else 24)
