"""Blocks of relayed messages as docs/protocol/blocks.md shows them: by the page, made and read."""

import json
import struct
from hashlib import blake2s
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from engines_in_memory import INDEX_A, INDEX_B, KEY_A, KEY_B

from dhtvpn.dataplane.block_sender import BlockSealer
from dhtvpn.mesh.relay_wire import RelayRun, run_in
from dhtvpn.wireguard.constants import TYPE_DATA, TYPE_DATA_AES
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.transport import OVERHEAD, Session

VECTORS = json.loads(Path(__file__).with_name("relayed_blocks.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_by_the_page(vector: dict[str, Any]) -> None:
    """Without this package."""
    ids = [bytes.fromhex(identity) for identity in vector["ids"]]
    plaintext = struct.pack("<HHB", 0, vector["stride"], 0x20 + len(ids)) + b"".join(ids)
    plaintext += bytes.fromhex(vector["messages"])
    assert plaintext.hex() == vector["plaintext"]
    nonce = bytes(4) + struct.pack("<Q", vector["counter"])
    header = struct.pack("<IIQ", 7 if vector["aes"] else 6, INDEX_B, vector["counter"])
    key = blake2s(b"dhtvpn type 5 AES-256-GCM", key=KEY_A).digest() if vector["aes"] else KEY_A
    sealed = (AESGCM if vector["aes"] else ChaCha20Poly1305)(key).encrypt(nonce, plaintext, header)
    size = vector["path_mtu"] + 12
    chunks = [sealed[at : at + size] for at in range(0, len(sealed), size)]
    datagrams = [header + struct.pack("<HH", n, len(chunks)) + chunk for n, chunk in enumerate(chunks)]
    assert [datagram.hex() for datagram in datagrams] == vector["datagrams"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_made_and_read(vector: dict[str, Any]) -> None:
    ids = [bytes.fromhex(identity) for identity in vector["ids"]]
    header = bytes((0x20 + len(ids),)) + b"".join(ids)
    run = RelayRun(header, bytes.fromhex(vector["messages"]), vector["stride"])
    assert run.plaintext().hex() == vector["plaintext"]
    assert run_in(memoryview(bytes.fromhex(vector["plaintext"]))) == run
    session = Session(Keypair(INDEX_A, INDEX_B, KEY_A, KEY_B, True, 0.0))
    session.counter = vector["counter"]
    kind = TYPE_DATA_AES if vector["aes"] else TYPE_DATA
    sealed = BlockSealer().seal(session, kind, run.plaintext(), vector["path_mtu"] + OVERHEAD)
    assert sealed is not None and sealed.hex() == "".join(vector["datagrams"])
