"""Conversations with a stock peer, captured from the wire (tests/vectors/wireguard/stock_peer.json): what
wireguard-go sent is taken, and what we sent comes out again, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.wireguard.constants import MAC_SIZE, TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE
from dhtvpn.wireguard.cookie import NO_MAC
from dhtvpn.wireguard.device import Device, KeypairReady, SendKeepalive
from dhtvpn.wireguard.noise import public_key
from dhtvpn.wireguard.transport import PeerTransport

VECTORS = Path(__file__).parents[2] / "vectors" / "wireguard"
CAPTURED: dict[str, Any] = json.loads((VECTORS / "stock_peer.json").read_text())
CONVERSATIONS: dict[str, dict[str, Any]] = CAPTURED["conversations"]
RANDOMNESS = {int(size): bytes.fromhex(content) for size, content in CAPTURED["randomness"].items()}
UNSEEN = {TYPE_INITIATION: MAC_SIZE, TYPE_RESPONSE: MAC_SIZE}
"""Bytes at the end of a message that nobody looks at: mac2, when we are not under load."""

conversations = pytest.mark.parametrize("name", sorted(CONVERSATIONS))


class Side:
    """Ours, as it was when the conversation was captured."""

    def __init__(self, conversation: dict[str, Any]) -> None:
        self.stock = Endpoint(*conversation["stock_endpoint"])
        self.drops = Drops()
        self.device = Device(
            bytes.fromhex(CAPTURED["our_private"]),
            RANDOMNESS.__getitem__,
            drops=self.drops,
            under_load=lambda _: bool(conversation["under_load"]),
        )
        key = public_key(bytes.fromhex(conversation["stock_private"]))
        self.peer = self.device.add_peer(key, bytes.fromhex(conversation["preshared_key"]))
        self.peer.set_endpoint(self.stock)
        self.transport = PeerTransport(1420, self.peer.keypair_confirmed)
        self.outgoing: list[bytes] = []

    def speak(self, message: dict[str, Any]) -> None:
        """Our part, where it is not an answer that the device gives by itself."""
        datagram, now = bytes.fromhex(message["datagram"]), message["at"]
        if datagram[0] == TYPE_INITIATION:
            self.peer.initiate(now, CAPTURED["unix_time"] + now, force=True)
        elif message.get("plaintext"):
            self._seal(bytes.fromhex(message["plaintext"]), now)
        self._collect(now)

    def take(self, message: dict[str, Any]) -> bytes | None:
        """A datagram of theirs: the plaintext of a data message."""
        datagram, now = bytes.fromhex(message["datagram"]), message["at"]
        if datagram[0] == TYPE_DATA:
            return self.transport.open(datagram, now)
        self.device.handle_datagram(datagram, self.stock, now, CAPTURED["unix_time"] + now)
        self._collect(now)
        return None

    def _collect(self, now: float) -> None:
        self.outgoing += [datagram for datagram, _ in self.device.datagrams_to_send()]
        for event in self.device.events():
            if isinstance(event, KeypairReady):
                self.transport.install(event.keypair)
            elif isinstance(event, SendKeepalive):
                self._seal(b"", now)

    def _seal(self, plaintext: bytes, now: float) -> None:
        datagram = self.transport.seal(plaintext, now)
        assert datagram is not None
        self.outgoing.append(datagram)


@conversations
def test_the_conversation_comes_out_again(name: str) -> None:
    side = Side(CONVERSATIONS[name])
    for message in CONVERSATIONS[name]["messages"]:
        if message["from"] == "us":
            side.speak(message)
            assert side.outgoing.pop(0).hex() == message["datagram"]
        else:
            plaintext = side.take(message)
            assert plaintext is None or plaintext.hex() == message["plaintext"]
    assert side.outgoing == []
    assert side.drops.as_dict() == ({"wireguard.no_cookie": 1} if CONVERSATIONS[name]["under_load"] else {})


@pytest.mark.parametrize("name", sorted(name for name, one in CONVERSATIONS.items() if not one["under_load"]))
def test_every_datagram_of_theirs_is_taken_once_and_unaltered_only(name: str) -> None:
    """Each is given with one bit changed, in a place that rotates, then as it was, then once more."""
    side = Side(CONVERSATIONS[name])
    for number, message in enumerate(CONVERSATIONS[name]["messages"]):
        if message["from"] == "us":
            side.speak(message)
            side.outgoing.clear()
            continue
        altered = bytearray.fromhex(message["datagram"])
        looked_at = len(altered) - UNSEEN.get(altered[0], 0)
        altered[4 + number * 7 % (looked_at - 4)] ^= 1 << number % 8
        assert refused(side, {**message, "datagram": altered.hex()})
        assert not refused(side, message)
        assert refused(side, message)


def refused(side: Side, message: dict[str, Any]) -> bool:
    before = side.drops.total()
    try:
        side.take(message)
    except DecodeError:
        return True
    side.outgoing.clear()
    return side.drops.total() > before


def test_both_kinds_of_mac2_are_in_the_captures() -> None:
    """So the cookie of either side was used: it was answered with a response under load."""
    for name, who in (("stock_gives_a_cookie", "us"), ("stock_takes_our_cookie", "stock")):
        first, second = [
            bytes.fromhex(message["datagram"])
            for message in CONVERSATIONS[name]["messages"]
            if message["from"] == who and message["datagram"].startswith("01")
        ]
        assert first.endswith(NO_MAC)
        assert not second.endswith(NO_MAC)
