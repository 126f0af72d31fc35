"""A topic: where the records of one network are found during one epoch, and the keys they are made with.

All of it comes from the network secret and the number of the epoch, so outsiders cannot tell which
network a topic belongs to, nor that two topics belong together.
"""

import hashlib
from dataclasses import dataclass, field

from nacl.signing import SigningKey

DHT_KEY_SIZE = 20
SLOT_SIZE = 16


@dataclass(frozen=True)
class Topic:
    """The keys of one epoch of one network."""

    epoch: int
    public_key: bytes
    """Ed25519, 32 bytes: in every envelope; members sign envelopes with its private half."""
    dht_key: bytes
    """20 bytes, the hash of ``public_key``: under it the envelopes are stored and found."""
    signing_key: SigningKey = field(repr=False)
    sealing_key: bytes = field(repr=False)
    """32 bytes, for XChaCha20-Poly1305."""
    slot_key: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes, epoch: int) -> "Topic":
        """The topic of the network with the 32-byte ``secret`` in the epoch with this number."""
        number = epoch.to_bytes(8, "big")
        signing_key = SigningKey(_derive(secret, b"dhtvpn topicsign", number))
        public_key = bytes(signing_key.verify_key)
        return cls(
            epoch,
            public_key,
            dht_key_of(public_key),
            signing_key,
            _derive(secret, b"dhtvpn topicseal", number),
            _derive(secret, b"dhtvpn topicslot", number),
        )

    def slot(self, node_key: bytes) -> bytes:
        """The writer id of ``node_key`` under this topic, 16 bytes; outsiders cannot link it to the node."""
        return hashlib.blake2b(
            node_key, digest_size=SLOT_SIZE, key=self.slot_key, person=b"dhtvpn slot"
        ).digest()


def dht_key_of(public_key: bytes) -> bytes:
    """The DHT key that belongs to a topic's public key: BLAKE2b, 20 bytes. A storing node checks it."""
    return hashlib.blake2b(public_key, digest_size=DHT_KEY_SIZE, person=b"dhtvpn dht key").digest()


def _derive(secret: bytes, domain: bytes, number: bytes) -> bytes:
    return hashlib.blake2b(number, digest_size=32, key=secret, person=domain).digest()
