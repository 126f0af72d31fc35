"""docs/protocol/lan.md, octet for octet; the layout is taken apart here by hand."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from dhtvpn.discovery.lan_wire import DATAGRAM_SIZE, Note, epoch_key, seal, unseal

VECTORS = json.loads((Path(__file__).parent / "lan.json").read_text())
NOTES = VECTORS["notes"]
KEY = bytes.fromhex(VECTORS["key"])


def note_of(vector: dict[str, Any]) -> Note:
    return Note(
        vector["unix_time"],
        tuple(bytes.fromhex(text) for text in vector["asked"]),
        tuple((bytes.fromhex(slot), sequence) for slot, sequence in vector["known"]),
        tuple((bytes.fromhex(key), bytes.fromhex(envelope)) for key, envelope in vector["envelopes"]),
    )


def test_the_key_of_an_epoch() -> None:
    secret, epoch = bytes.fromhex(VECTORS["secret"]), VECTORS["epoch"]
    number = epoch.to_bytes(8, "big")
    assert hashlib.blake2b(number, digest_size=32, key=secret, person=b"dhtvpn lan seal").digest() == KEY
    assert epoch_key(secret, epoch) == KEY != epoch_key(secret, epoch + 1)


@pytest.mark.parametrize("vector", NOTES, ids=lambda vector: vector["name"])
def test_datagram(vector: dict[str, Any]) -> None:
    datagram, nonce = bytes.fromhex(vector["datagram"]), bytes.fromhex(vector["nonce"])
    assert seal(note_of(vector), KEY, lambda size: nonce[:size]) == datagram
    assert unseal(datagram, [bytes(32), KEY]) == note_of(vector)
    assert len(datagram) == DATAGRAM_SIZE == 1192 and datagram[:24] == nonce
    plaintext = crypto_aead_xchacha20poly1305_ietf_decrypt(datagram[24:], None, nonce, KEY)
    meant = bytes.fromhex(vector["plaintext"])
    assert plaintext == meant + bytes(1152 - len(meant))


@pytest.mark.parametrize("vector", NOTES, ids=lambda vector: vector["name"])
def test_plaintext(vector: dict[str, Any]) -> None:
    left = bytes.fromhex(vector["plaintext"])

    def take(length: int) -> bytes:
        nonlocal left
        taken, left = left[:length], left[length:]
        return taken

    assert take(1) == b"\x01"
    assert int.from_bytes(take(8), "big") == vector["unix_time"]
    assert [take(20).hex() for _ in range(take(1)[0])] == vector["asked"]
    known = [[take(16).hex(), int.from_bytes(take(8), "big")] for _ in range(take(1)[0])]
    assert known == vector["known"]
    envelopes = []
    for _ in range(take(1)[0]):
        key, length = take(20).hex(), int.from_bytes(take(2), "big")
        envelopes.append([key, take(length).hex()])
    assert envelopes == vector["envelopes"] and not left
