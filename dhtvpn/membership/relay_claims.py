"""Claims: what a member shows a relay to be sent to under a name that only members know.

A relay sees a claim and the id that is its hash. Without the network secret neither can be linked to a node,
to a network, or to the claims of the same node in another epoch.
"""

import hashlib

CLAIM_SIZE = 16


def relay_claim(secret: bytes, epoch: int, node_key: bytes) -> bytes:
    """The claim of ``node_key`` in the epoch with this number, 16 bytes. Every member can compute it."""
    return hashlib.blake2b(
        epoch.to_bytes(8, "big") + node_key, digest_size=CLAIM_SIZE, key=secret, person=b"dhtvpn relayclm"
    ).digest()
