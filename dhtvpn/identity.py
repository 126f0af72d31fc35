"""Who this node is in one network: an Ed25519 key, and the tunnel's X25519 key derived from it.

The node's id is its public key; people see the first eight characters of its base32. The X25519 key
is the birationally equivalent one (RFC 7748 section 4.1), as libsodium converts it, so whoever knows a
node key knows the tunnel key of that node too, and no second key has to be published.
"""

import base64
import logging
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nacl.bindings
import nacl.exceptions
from nacl.signing import SigningKey, VerifyKey

from dhtvpn import files
from dhtvpn.errors import DamagedStateError, DecodeError, SystemRefusedError

log = logging.getLogger(__name__)

SEED_SIZE = 32
NODE_KEY_SIZE = 32
SIGNATURE_SIZE = 64
SHORT_ID_LENGTH = 8

_FILE_KIND = "dhtvpn identity"
_FILE_VERSION = 1


class Identity:
    """The keys of this node in one network. All but ``node_key`` and ``tunnel_public_key`` is secret."""

    def __init__(self, signing_key: SigningKey) -> None:
        self._signing_key = signing_key
        private_key = signing_key.to_curve25519_private_key()
        self.node_key: bytes = bytes(signing_key.verify_key)
        """Ed25519 public key, 32 bytes: the node's id."""
        self.tunnel_private_key: bytes = bytes(private_key)
        """X25519 private key, 32 bytes, clamped."""
        self.tunnel_public_key: bytes = bytes(private_key.public_key)
        """X25519 public key, 32 bytes; equals ``tunnel_public_key(self.node_key)``."""

    @classmethod
    def from_seed(cls, seed: bytes) -> "Identity":
        """The identity that a 32-byte seed (RFC 8032 section 5.1.5) stands for."""
        return cls(SigningKey(seed))

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of ``message``, 64 bytes. The caller separates domains by a prefix."""
        return self._signing_key.sign(message).signature

    def shared_secret(self, node_key: bytes) -> bytes:
        """X25519 of our tunnel key and that of the node ``node_key``: 32 bytes that only the two know.

        Raises DecodeError("node_key") when ``node_key`` is no usable key.
        """
        return nacl.bindings.crypto_scalarmult(self.tunnel_private_key, tunnel_public_key(node_key))

    @property
    def short_id(self) -> str:
        return short_id(self.node_key)

    def __repr__(self) -> str:
        return f"Identity({self.short_id})"


def short_id(node_key: bytes) -> str:
    """The first eight characters of the key's base32, lower case: what people see."""
    return base64.b32encode(node_key[:SHORT_ID_LENGTH]).decode("ascii").lower()[:SHORT_ID_LENGTH]


def tunnel_public_key(node_key: bytes) -> bytes:
    """The X25519 public key of the node whose Ed25519 key is ``node_key``, 32 bytes.

    Raises DecodeError("node_key") for anything that is not a point of the prime-order group in its
    one canonical spelling: with a small-order key every shared secret would be zero.
    """
    if len(node_key) != NODE_KEY_SIZE or not nacl.bindings.crypto_core_ed25519_is_valid_point(node_key):
        raise DecodeError("node_key")
    try:
        return nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(node_key)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise DecodeError("node_key") from error


def verify(node_key: bytes, message: bytes, signature: bytes) -> None:
    """Raises DecodeError("signature") unless ``signature`` is that of ``node_key`` over ``message``."""
    if len(node_key) != NODE_KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        raise DecodeError("signature")
    try:
        VerifyKey(node_key).verify(message, signature)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise DecodeError("signature") from error


def load_or_create(path: Path, random_bytes: Callable[[int], bytes]) -> Identity:
    """The identity kept in ``path`` (JSON, mode 0600), drawn and written there when there is none yet.

    The file holds the seed and the public key, so that a flipped bit is noticed instead of making
    another node of this one. Raises DamagedStateError when it is not what was written: the file stays
    where it is, a copy is kept beside it, and nothing is ever written over it. Raises SystemRefusedError
    when it can be neither read nor written.
    """
    try:
        state = files.read_json(path)
        identity = None if state is None else _from_state(state)
    except (DamagedStateError, ValueError) as error:
        raise _damaged(path) from error
    if identity is not None:
        _keep_private(path)
        return identity
    seed = random_bytes(SEED_SIZE)
    identity = Identity.from_seed(seed)
    state = {
        "kind": _FILE_KIND,
        "version": _FILE_VERSION,
        "seed": seed.hex(),
        "node_key": identity.node_key.hex(),
    }
    files.write_json(path, state)
    log.info("made a new identity, %s, in %s", identity.short_id, path)
    return identity


def _from_state(state: dict[str, Any]) -> Identity:
    """Raises ValueError unless ``state`` is what :func:`load_or_create` writes."""
    seed, node_key = state.get("seed"), state.get("node_key")
    if state.get("kind") != _FILE_KIND or state.get("version") != _FILE_VERSION:
        raise ValueError("not an identity file of this version")
    if not isinstance(seed, str) or len(seed) != 2 * SEED_SIZE:
        raise ValueError("no seed of 32 bytes in hexadecimal")
    identity = Identity.from_seed(bytes.fromhex(seed))
    if node_key != identity.node_key.hex():
        raise ValueError("seed and public key do not belong together")
    return identity


def _damaged(path: Path) -> DamagedStateError:
    try:
        kept = f"a copy is kept in {files.keep_copy(path)}"
    except SystemRefusedError:
        kept = "no copy could be made"
    return DamagedStateError(
        f"the identity file {path} is damaged ({kept}): put back a backup, or move the file away "
        "to join as a new node with another address"
    )


def _keep_private(path: Path) -> None:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(files.SECRET_MODE)
            log.warning("%s could be read by other users; its mode is now 0600", path)
    except OSError as error:
        log.warning("cannot make %s private to its owner: %s", path, error.strerror)
