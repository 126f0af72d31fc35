"""What the core tells its owner. Peers are named by their tunnel public key (X25519, 32 bytes)."""

from dataclasses import dataclass

from dhtvpn.endpoint import Endpoint
from dhtvpn.wireguard.keypair import Keypair


@dataclass(frozen=True, slots=True)
class KeypairReady:
    """A handshake has given a keypair: install it in the engine."""

    public_key: bytes
    keypair: Keypair


@dataclass(frozen=True, slots=True)
class SendKeepalive:
    """Seal an empty data message and send it. Follows an initiator's KeypairReady at once, to confirm it."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class KeypairsErased:
    """540 s without a new session: forget every keypair of this peer."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class HandshakeFailed:
    """90 s of initiations without an answer. The next occasion to send starts over."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class EndpointLearned:
    """An authenticated handshake message came from a new place: send there from now on."""

    public_key: bytes
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class UnknownPeer:
    """Somebody who knows our public key names a static key that we do not know. The name is a claim, not
    proven; nothing was sent back. At most UNKNOWN_PEERS_PER_S in a second."""

    public_key: bytes


Event = KeypairReady | SendKeepalive | KeypairsErased | HandshakeFailed | EndpointLearned | UnknownPeer
