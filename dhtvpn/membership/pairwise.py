"""What two members share without a word between them: the tunnel's PSK and their ICE credentials."""

import base64
import hashlib
from dataclasses import dataclass, field

PSK_SIZE = 32
NONCE_SIZE = 16

_UFRAG_BYTES = 9
"""12 characters: many agents share one port and are told apart by it, so 24 bits (RFC 8445) are too few."""
_PASSWORD_BYTES = 24
"""32 characters, 192 bits; RFC 8445 section 5.3 asks for 128."""


@dataclass(frozen=True)
class PairCredentials:
    """ICE credentials of one pair of nodes as one of them sees them (RFC 8445 section 5.3)."""

    own_ufrag: str
    own_password: str = field(repr=False)
    peer_ufrag: str
    peer_password: str = field(repr=False)
    controlling: bool
    """Whether this side nominates: the one with the lower node key."""


def tunnel_psk(secret: bytes, node_key_a: bytes, node_key_b: bytes) -> bytes:
    """The 32 bytes for WireGuard's PSK slot between two nodes; their order does not matter.

    Keyed by the network secret, so that only holders of the network-id complete a handshake.
    """
    low, high = sorted((node_key_a, node_key_b))
    return hashlib.blake2b(low + high, digest_size=PSK_SIZE, key=secret, person=b"dhtvpn psk").digest()


def ice_credentials(
    shared_secret: bytes, own_key: bytes, own_nonce: bytes, peer_key: bytes, peer_nonce: bytes
) -> PairCredentials:
    """The credentials of the pair: both sides compute the same ones, mirrored.

    ``shared_secret`` is X25519 of the two tunnel keys (``Identity.shared_secret``), the keys are node
    keys, the nonces the 16-byte session nonces of the two records: a restarted node gets fresh ones.
    Raises ValueError when both keys are one.
    """
    if own_key == peer_key:
        raise ValueError("a node makes no pair with itself")
    if len(own_nonce) != NONCE_SIZE or len(peer_nonce) != NONCE_SIZE:
        raise ValueError(f"a session nonce has {NONCE_SIZE} bytes")
    controlling = own_key < peer_key
    sides = [own_key + own_nonce, peer_key + peer_nonce]
    pair = b"".join(sorted(sides))
    own, peer = (_side(shared_secret, pair, side) for side in sides)
    return PairCredentials(*own, *peer, controlling)


def _side(shared_secret: bytes, pair: bytes, side: bytes) -> tuple[str, str]:
    """Username fragment and password of one side, in ice-chars (RFC 8839 section 5.4), that is base64."""
    digest = hashlib.blake2b(
        pair + side, digest_size=_UFRAG_BYTES + _PASSWORD_BYTES, key=shared_secret, person=b"dhtvpn ice"
    ).digest()
    text = base64.b64encode(digest).decode("ascii")
    return text[:12], text[12:]
