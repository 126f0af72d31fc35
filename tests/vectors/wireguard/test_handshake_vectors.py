"""docs/protocol/tunnel.md, byte for byte: one whole conversation with fixed keys, in handshake.json.

The conversation is checked twice: ``paper_transcript`` computes it straight from the paper with the
``cryptography`` package and nothing of ours, and two Devices with scripted randomness play it.
"""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.wireguard import device as wg
from dhtvpn.wireguard.transport import PeerTransport

VECTOR: dict[str, Any] = json.loads((Path(__file__).parent / "handshake.json").read_text())
INPUTS: dict[str, Any] = VECTOR["inputs"]
OUTPUTS: dict[str, str] = VECTOR["outputs"]

NOW = 1000.0
INITIATOR = Endpoint(*INPUTS["initiator_endpoint"])
RESPONDER = Endpoint(*INPUTS["responder_endpoint"])


def key(name: str) -> bytes:
    return bytes.fromhex(INPUTS[name])


# The paper, in a straight line


def hash_(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def mac(k: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=k, digest_size=16).digest()


def kdf(chain: bytes, data: bytes, count: int) -> list[bytes]:
    tau0 = hmac.new(chain, data, hashlib.blake2s).digest()
    taus = [b""]
    for i in range(count):
        taus.append(hmac.new(tau0, taus[-1] + bytes([i + 1]), hashlib.blake2s).digest())
    return taus[1:]


def dh(private: bytes, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def pub(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def aead(k: bytes, counter: int, plaintext: bytes, data: bytes) -> bytes:
    return ChaCha20Poly1305(k).encrypt(bytes(4) + counter.to_bytes(8, "little"), plaintext, data)


def paper_transcript() -> dict[str, str]:
    s_i, s_r, e_i, e_r = (
        key(name)
        for name in ("initiator_private", "responder_private", "initiator_ephemeral", "responder_ephemeral")
    )
    i, r = (INPUTS[name].to_bytes(4, "little") for name in ("initiator_index", "responder_index"))
    c = hash_(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    h = hash_(hash_(c + b"WireGuard v1 zx2c4 Jason@zx2c4.com") + pub(s_r))
    (c,) = kdf(c, pub(e_i), 1)
    h = hash_(h + pub(e_i))
    c, k = kdf(c, dh(e_i, pub(s_r)), 2)
    static = aead(k, 0, pub(s_i), h)
    h = hash_(h + static)
    c, k = kdf(c, dh(s_i, pub(s_r)), 2)
    timestamp = aead(k, 0, key("timestamp"), h)
    h = hash_(h + timestamp)
    initiation = b"\1\0\0\0" + i + pub(e_i) + static + timestamp
    initiation += mac(hash_(b"mac1----" + pub(s_r)), initiation)
    initiation += bytes(16)

    (c,) = kdf(c, pub(e_r), 1)
    h = hash_(h + pub(e_r))
    (c,) = kdf(c, dh(e_r, pub(e_i)), 1)
    (c,) = kdf(c, dh(e_r, pub(s_i)), 1)
    c, tau, k = kdf(c, key("preshared_key"), 3)
    h = hash_(h + tau)
    response = b"\2\0\0\0" + r + i + pub(e_r) + aead(k, 0, b"", h)
    response += mac(hash_(b"mac1----" + pub(s_i)), response)
    response += bytes(16)

    to_responder, to_initiator = kdf(c, b"", 2)
    packet, padding = key("packet"), bytes(-len(key("packet")) % 16)
    return {
        "initiation": initiation.hex(),
        "response": response.hex(),
        "initiator_to_responder_key": to_responder.hex(),
        "responder_to_initiator_key": to_initiator.hex(),
        "keepalive": (b"\4\0\0\0" + r + bytes(8) + aead(to_responder, 0, b"", b"")).hex(),
        "data": (b"\4\0\0\0" + i + bytes(8) + aead(to_initiator, 0, packet + padding, b"")).hex(),
    }


@pytest.mark.parametrize("name", sorted(paper_transcript()))
def test_the_paper_gives_the_frozen_transcript(name: str) -> None:
    assert paper_transcript()[name] == OUTPUTS[name]


# The same by our code


class Scripted:
    """Randomness by size: the transcript needs each size for one purpose only."""

    def __init__(self, by_size: dict[int, bytes]) -> None:
        self._by_size = by_size

    def __call__(self, size: int) -> bytes:
        return self._by_size[size]


def devices(*, responder_loaded: bool = False) -> tuple[wg.Device, wg.Device]:
    def randomness(role: str) -> Scripted:
        by_size = {2: bytes(2), 4: INPUTS[f"{role}_index"].to_bytes(4, "little"), 24: key("cookie_nonce")}
        by_size[32] = key(
            "cookie_secret" if responder_loaded and role == "responder" else f"{role}_ephemeral"
        )
        return Scripted(by_size)

    initiator = wg.Device(key("initiator_private"), randomness("initiator"), drops=Drops())
    responder = wg.Device(
        key("responder_private"),
        randomness("responder"),
        drops=Drops(),
        under_load=lambda _: responder_loaded,
    )
    initiator.add_peer(responder.public_key, key("preshared_key")).set_endpoint(RESPONDER)
    responder.add_peer(initiator.public_key, key("preshared_key"))
    return initiator, responder


def only_datagram(device: wg.Device, destination: Endpoint) -> bytes:
    ((datagram, endpoint),) = device.datagrams_to_send()
    assert endpoint == destination
    return datagram


def only_keypair(device: wg.Device) -> Any:
    (keypair,) = (event.keypair for event in device.events() if isinstance(event, wg.KeypairReady))
    return keypair


def test_devices_play_the_frozen_transcript() -> None:
    initiator, responder = devices()
    initiator.peers[0].initiate(NOW, INPUTS["unix_time"])
    initiation = only_datagram(initiator, RESPONDER)
    assert initiation.hex() == OUTPUTS["initiation"]
    responder.handle_datagram(initiation, INITIATOR, NOW, INPUTS["unix_time"])
    response = only_datagram(responder, INITIATOR)
    assert response.hex() == OUTPUTS["response"]
    initiator.handle_datagram(response, RESPONDER, NOW, INPUTS["unix_time"])

    transports = PeerTransport(1420), PeerTransport(1420)
    for device, transport in zip((initiator, responder), transports, strict=True):
        keypair = only_keypair(device)
        names = ["initiator_to_responder_key", "responder_to_initiator_key"]
        if device is responder:
            names.reverse()
        assert [keypair.send_key.hex(), keypair.receive_key.hex()] == [OUTPUTS[name] for name in names]
        transport.install(keypair)
    ours, theirs = transports
    keepalive = ours.seal(b"", NOW)
    assert keepalive is not None
    assert keepalive.hex() == OUTPUTS["keepalive"]
    assert theirs.open(keepalive, NOW) == b""
    data = theirs.seal(key("packet"), NOW)
    assert data is not None
    assert data.hex() == OUTPUTS["data"]
    assert ours.open(data, NOW).rstrip(b"\0") == key("packet").rstrip(b"\0")


def test_cookie_reply_and_the_mac2_made_of_it() -> None:
    """Section 5.4.7. The frozen bytes hold the cookie to BLAKE2s over the address and port of the sender."""
    initiator, responder = devices(responder_loaded=True)
    initiator.peers[0].initiate(NOW, INPUTS["unix_time"])
    responder.handle_datagram(only_datagram(initiator, RESPONDER), INITIATOR, NOW, INPUTS["unix_time"])
    reply = only_datagram(responder, INITIATOR)
    assert reply.hex() == OUTPUTS["cookie_reply"]
    initiator.handle_datagram(reply, RESPONDER, NOW, INPUTS["unix_time"])
    assert initiator.datagrams_to_send() == []

    initiator.peers[0].initiate(NOW + 5, INPUTS["unix_time"], force=True)
    again = only_datagram(initiator, RESPONDER)
    assert again.hex() == OUTPUTS["initiation_with_cookie"]
    host, port = INPUTS["initiator_endpoint"]
    address = bytes(int(part) for part in host.split(".")) + port.to_bytes(2, "big")
    cookie = mac(key("cookie_secret"), address)
    assert again[-16:] == mac(cookie, again[:-16])
