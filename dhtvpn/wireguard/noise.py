"""The handshake Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (paper sections 5.4.2 to 5.4.5).

    initiator                                   responder
    start()          ── initiation ──▶          read_initiation()
    finish()         ◀── response ───           respond()
       both sides: (send key, receive key)

The comments beside the steps are the paper's own notation: C is the chaining key, H the hash, E an
ephemeral and S a static key, Q the preshared key.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from dhtvpn.errors import DecodeError
from dhtvpn.wireguard.constants import CONSTRUCTION, IDENTIFIER, KEY_SIZE
from dhtvpn.wireguard.messages import Initiation, Response

_NONCE: Final = bytes(12)  # every key of the handshake seals one text only
_ZERO: Final = bytes(KEY_SIZE)


def blake2s(*parts: bytes) -> bytes:
    """HASH of the paper: BLAKE2s-256 over the parts joined."""
    return hashlib.blake2s(b"".join(parts)).digest()


def hmac_blake2s(key: bytes, data: bytes) -> bytes:
    """HMAC of the paper (RFC 2104 with BLAKE2s)."""
    return hmac.digest(key, data, hashlib.blake2s)


def kdf(key: bytes, data: bytes, count: int) -> list[bytes]:
    """KDF_n of the paper: HKDF (RFC 5869, empty info) to ``count`` outputs of 32 bytes."""
    secret = hmac_blake2s(key, data)
    outputs: list[bytes] = []
    block = b""
    for number in range(1, count + 1):
        block = hmac_blake2s(secret, block + bytes([number]))
        outputs.append(block)
    return outputs


def public_key(private_key: bytes) -> bytes:
    """The X25519 public key (RFC 7748) of a private key."""
    result: bytes = bindings.crypto_scalarmult_base(private_key)
    return result


def shared_secret(private_key: bytes, other_public_key: bytes) -> bytes:
    """X25519. Raises DecodeError "low_order" where the result is zero: such a point hides nothing."""
    try:
        result: bytes = bindings.crypto_scalarmult(private_key, other_public_key)
    except CryptoError:  # libsodium refuses a zero result itself
        raise DecodeError("low_order") from None
    if hmac.compare_digest(result, _ZERO):
        raise DecodeError("low_order")
    return result


INITIAL_CHAIN: Final = blake2s(CONSTRUCTION)
INITIAL_HASH: Final = blake2s(INITIAL_CHAIN, IDENTIFIER)


@dataclass(frozen=True, slots=True)
class LocalStatic:
    """This device's own static key pair."""

    private_key: bytes = field(repr=False)
    public_key: bytes

    @classmethod
    def of(cls, private_key: bytes) -> "LocalStatic":
        """Raises ValueError for a key of a wrong length."""
        if len(private_key) != KEY_SIZE:
            raise ValueError(f"a private key has {KEY_SIZE} bytes, not {len(private_key)}")
        return cls(private_key, public_key(private_key))


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """What a finished handshake gives one side: two keys of 32 bytes."""

    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)


class _Symmetric:
    """C and H of the paper, and the four ways they move on."""

    __slots__ = ("chain", "hash")

    def __init__(self, chain: bytes, hash_: bytes) -> None:
        self.chain = chain
        self.hash = hash_

    def mix_hash(self, data: bytes) -> None:
        self.hash = blake2s(self.hash, data)

    def mix_chain(self, data: bytes) -> None:
        (self.chain,) = kdf(self.chain, data, 1)

    def mix_key(self, data: bytes) -> bytes:
        self.chain, key = kdf(self.chain, data, 2)
        return key

    def seal(self, key: bytes, plaintext: bytes) -> bytes:
        sealed: bytes = bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, self.hash, _NONCE, key)
        self.mix_hash(sealed)
        return sealed

    def open(self, key: bytes, sealed: bytes, reason: str) -> bytes:
        try:
            plaintext: bytes = bindings.crypto_aead_chacha20poly1305_ietf_decrypt(
                sealed, self.hash, _NONCE, key
            )
        except CryptoError:
            raise DecodeError(reason) from None
        self.mix_hash(sealed)
        return plaintext


def _opening(responder_public_key: bytes, ephemeral: bytes) -> _Symmetric:
    """Both sides, up to the first Diffie-Hellman of the initiation."""
    state = _Symmetric(INITIAL_CHAIN, blake2s(INITIAL_HASH, responder_public_key))  # H := Hash(H || S_r.pub)
    state.mix_chain(ephemeral)  # C := Kdf1(C, E_i.pub)
    state.mix_hash(ephemeral)  # H := Hash(H || E_i.pub)
    return state


@dataclass(frozen=True, slots=True)
class PendingInitiation:
    """What the initiator keeps between its initiation and the response."""

    message: Initiation
    ephemeral_private: bytes = field(repr=False)
    chain: bytes = field(repr=False)
    hash: bytes = field(repr=False)


def start(
    local: LocalStatic,
    remote_public_key: bytes,
    static_static: bytes,
    *,
    sender: int,
    timestamp: bytes,
    ephemeral_private: bytes,
) -> PendingInitiation:
    """Make an initiation (section 5.4.2). ``static_static`` is the X25519 of both static keys.

    Raises DecodeError "low_order" for a bad remote key.
    """
    ephemeral = public_key(ephemeral_private)
    state = _opening(remote_public_key, ephemeral)
    key = state.mix_key(
        shared_secret(ephemeral_private, remote_public_key)
    )  # (C, k) := Kdf2(C, DH(E_i, S_r))
    static = state.seal(key, local.public_key)
    key = state.mix_key(static_static)  # (C, k) := Kdf2(C, DH(S_i, S_r))
    sealed_timestamp = state.seal(key, timestamp)
    message = Initiation(sender, ephemeral, static, sealed_timestamp)
    return PendingInitiation(message, ephemeral_private, state.chain, state.hash)


class ReceivedInitiation:
    """An initiation on its way through the responder: first who claims to have sent it, then the proof."""

    def __init__(self, local: LocalStatic, message: Initiation) -> None:
        """Open the initiator's static key. Raises DecodeError "low_order" or "static"."""
        self.sender = message.sender
        self.ephemeral = message.ephemeral
        self._sealed_timestamp = message.timestamp
        self._state = _opening(local.public_key, message.ephemeral)
        key = self._state.mix_key(shared_secret(local.private_key, message.ephemeral))
        self.static = self._state.open(key, message.static, "static")

    def open_timestamp(self, static_static: bytes) -> bytes:
        """The time stamp, 12 bytes; it opens only if the initiator holds the private key of ``static``.
        Once only. Raises DecodeError "timestamp"."""
        key = self._state.mix_key(static_static)
        return self._state.open(key, self._sealed_timestamp, "timestamp")

    def respond(
        self, preshared_key: bytes, *, sender: int, ephemeral_private: bytes
    ) -> tuple[Response, SessionKeys]:
        """The response and the responder's keys (section 5.4.3), after :meth:`open_timestamp`.

        Raises DecodeError "low_order".
        """
        state = self._state
        ephemeral = public_key(ephemeral_private)
        state.mix_chain(ephemeral)  # C := Kdf1(C, E_r.pub)
        state.mix_hash(ephemeral)  # H := Hash(H || E_r.pub)
        state.mix_chain(shared_secret(ephemeral_private, self.ephemeral))  # C := Kdf1(C, DH(E_r, E_i))
        state.mix_chain(shared_secret(ephemeral_private, self.static))  # C := Kdf1(C, DH(E_r, S_i))
        key = _mix_preshared(state, preshared_key)
        empty = state.seal(key, b"")
        receive_key, send_key = kdf(state.chain, b"", 2)
        return Response(sender, self.sender, ephemeral, empty), SessionKeys(send_key, receive_key)


def finish(
    local: LocalStatic, pending: PendingInitiation, preshared_key: bytes, response: Response
) -> SessionKeys:
    """The initiator's keys from the response (section 5.4.5). ``pending`` stays usable if it fails.

    Raises DecodeError "low_order" or "response" (another preshared key, or a forgery).
    """
    state = _Symmetric(pending.chain, pending.hash)
    state.mix_chain(response.ephemeral)
    state.mix_hash(response.ephemeral)
    state.mix_chain(shared_secret(pending.ephemeral_private, response.ephemeral))
    state.mix_chain(shared_secret(local.private_key, response.ephemeral))
    key = _mix_preshared(state, preshared_key)
    state.open(key, response.empty, "response")
    send_key, receive_key = kdf(state.chain, b"", 2)
    return SessionKeys(send_key, receive_key)


def _mix_preshared(state: _Symmetric, preshared_key: bytes) -> bytes:
    state.chain, tau, key = kdf(state.chain, preshared_key, 3)  # (C, tau, k) := Kdf3(C, Q)
    state.mix_hash(tau)  # H := Hash(H || tau)
    return key
