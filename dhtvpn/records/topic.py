"""A topic: where records of one network are found during one epoch, and the keys they are made with.

A network has one *roster* topic per epoch, and for every member one topic per overlay address and one for
its name, so that a member can be found by whoever knows no more than that. All of it comes from the
network secret, the number of the epoch and the address or name, so outsiders cannot tell which network a
topic belongs to, nor that two topics belong together.
"""

import hashlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from nacl.signing import SigningKey

DHT_KEY_SIZE = 20
SLOT_SIZE = 16
SHIFT_SIZE = 5
"""Octets of the shift of sequence numbers: in milliseconds, 35 years."""


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

    @classmethod
    def of_address(cls, secret: bytes, epoch: int, address: IPv4Address | IPv6Address) -> "Topic":
        """Where the member that has the overlay ``address`` is found, and called."""
        return cls.derive(_derive(secret, b"dhtvpn topicaddr", address.packed), epoch)

    @classmethod
    def of_name(cls, secret: bytes, epoch: int, name: str) -> "Topic":
        """Where the members called ``name`` are found."""
        return cls.derive(_derive(secret, b"dhtvpn topicname", name.encode()), epoch)

    def sequence_shift(self, node_key: bytes) -> int:
        """What is added to the sequence numbers of ``node_key`` under this topic: without the secret, a
        number in one epoch cannot be told to continue one in another."""
        digest = hashlib.blake2b(
            node_key, digest_size=SHIFT_SIZE, key=self.slot_key, person=b"dhtvpn sequence"
        ).digest()
        return int.from_bytes(digest, "big")

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
