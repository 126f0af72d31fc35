"""A data message of type 5 (docs/protocol/tunnel.md): by its formula, and by this package."""

import json
from hashlib import blake2s
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dhtvpn.wireguard.constants import TYPE_DATA_AES
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.transport import PeerTransport, aes_key

VECTOR = json.loads(Path(__file__).with_name("data_type_5.json").read_text())
KEY, PACKET = bytes.fromhex(VECTOR["transport_key"]), bytes.fromhex(VECTOR["packet"])
INDEX, COUNTER = VECTOR["receiver_index"], VECTOR["counter"]


def test_by_the_formula() -> None:
    key = blake2s(b"dhtvpn type 5 AES-256-GCM", key=KEY, digest_size=32).digest()
    assert key.hex() == VECTOR["aes_key"]
    padded = PACKET + bytes(-len(PACKET) % 16)
    sealed = AESGCM(key).encrypt(bytes(4) + COUNTER.to_bytes(8, "little"), padded, None)
    head = b"\x05\0\0\0" + INDEX.to_bytes(4, "little") + COUNTER.to_bytes(8, "little")
    assert (head + sealed).hex() == VECTOR["datagram"]


def test_by_the_transport() -> None:
    assert aes_key(KEY).hex() == VECTOR["aes_key"]
    sender, receiver = PeerTransport(1420), PeerTransport(1420)
    sender.install(Keypair(1, INDEX, KEY, bytes(32), True, 0.0))
    receiver.install(Keypair(INDEX, 1, bytes(32), KEY, False, 0.0))
    sender.message_type = TYPE_DATA_AES
    session = sender.sending(0.0)
    assert session is not None
    session.counter = COUNTER
    datagram = sender.seal(PACKET, 0.0)
    assert datagram is not None
    assert datagram.hex() == VECTOR["datagram"]
    assert receiver.open(datagram, 0.0).rstrip(b"\0") == PACKET
