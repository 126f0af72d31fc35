"""Blocks as docs/protocol/blocks.md shows them, byte by byte: made again from the page, sent and received."""

import json
import struct
from hashlib import blake2s
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from engines_in_memory import INDEX_B, KEY_A, Pair
from super_packets import ACK, CWR, FIN, PSH, from_device, tcp, udp

from dhtvpn.dataplane.messages import SetPathMtu

VECTORS = json.loads(Path(__file__).with_name("blocks.json").read_text())
HOSTS = {4: ("10.1.0.1", "10.1.0.2"), 6: ("fd00::1", "fd00::2")}


def given(vector: dict[str, Any]) -> bytes:
    hosts, payload = HOSTS[vector["ip_version"]], bytes.fromhex(vector["payload"])
    if vector["protocol"] == "tcp":
        packet = tcp(*hosts, payload, sequence=7, flags=ACK | PSH | FIN | CWR)
    else:
        packet = udp(*hosts, payload)
    return from_device(packet, vector["segment"])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_by_the_page(vector: dict[str, Any]) -> None:
    """Without this package: the cipher over segment size, packet and padding, cut where the path ends."""
    packet = bytes.fromhex(vector["super_packet"])
    plaintext = struct.pack("<H", vector["segment"]) + packet
    plaintext += bytes(-len(plaintext) % 16)
    nonce = bytes(4) + struct.pack("<Q", vector["counter"])
    header = struct.pack("<IIQ", 7 if vector["aes"] else 6, INDEX_B, vector["counter"])
    key = blake2s(b"dhtvpn type 5 AES-256-GCM", key=KEY_A).digest() if vector["aes"] else KEY_A
    sealed = (AESGCM if vector["aes"] else ChaCha20Poly1305)(key).encrypt(nonce, plaintext, header)
    size = vector["path_mtu"] + 12
    chunks = [sealed[at : at + size] for at in range(0, len(sealed), size)]
    datagrams = [header + struct.pack("<HH", n, len(chunks)) + chunk for n, chunk in enumerate(chunks)]
    assert [datagram.hex() for datagram in datagrams] == vector["datagrams"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_block_leaves_and_arrives(vector: dict[str, Any]) -> None:
    pair = Pair.with_blocks(aes=vector["aes"])
    pair.a.engine.handle_command(SetPathMtu(1, vector["path_mtu"]), 0.0)
    session = pair.a.engine._peers.by_number[1].transport._slots.current
    assert session is not None
    session.counter = vector["counter"]
    assert given(vector)[10:].hex() == vector["super_packet"]
    pair.a.send(given(vector))
    sent = pair.a.take_sent()
    assert [datagram.hex() for datagram in sent] == vector["datagrams"]
    pair.b.receive_run(sent, source=("192.0.2.1", 4001))
    assert pair.b.take_received() == [given(vector)]
