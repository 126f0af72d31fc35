"""mac1, mac2 and cookies (paper sections 5.3 and 5.4.4 to 5.4.7): cheap proof before costly work.

mac1 shows that the sender knows our public key; without it there is no answer at all. Under load a sender
must also put the cookie that we sent to its address into mac2, which shows that it receives there.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.wireguard.constants import (
    COOKIE_LIFETIME,
    COOKIE_NONCE_SIZE,
    COOKIE_SECRET_LIFETIME,
    COOKIE_SIZE,
    HASH_SIZE,
    LABEL_COOKIE,
    LABEL_MAC1,
    MAC_SIZE,
)
from dhtvpn.wireguard.messages import MACS_SIZE, CookieReply, sender_index
from dhtvpn.wireguard.noise import blake2s

NO_MAC: Final = bytes(MAC_SIZE)


def mac(key: bytes, data: bytes) -> bytes:
    """MAC of the paper: keyed BLAKE2s with 16 bytes of output."""
    return hashlib.blake2s(data, digest_size=MAC_SIZE, key=key).digest()


def _seal_cookie(key: bytes, nonce: bytes, cookie: bytes, mac1: bytes) -> bytes:
    sealed: bytes = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(cookie, mac1, nonce, key)
    return sealed


class MacChecker:
    """The receiving side: checks the MACs of messages to us and makes cookie replies."""

    def __init__(self, own_public_key: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._mac1_key = blake2s(LABEL_MAC1, own_public_key)
        self._cookie_key = blake2s(LABEL_COOKIE, own_public_key)
        self._random_bytes = random_bytes
        self._secret = b""
        self._secret_since: float | None = None

    def mac1_valid(self, datagram: bytes) -> bool:
        """Whether the sender knew our public key. ``datagram`` is a whole type 1 or 2 message."""
        expected = mac(self._mac1_key, datagram[:-MACS_SIZE])
        return hmac.compare_digest(expected, datagram[-MACS_SIZE:-MAC_SIZE])

    def mac2_valid(self, datagram: bytes, source: Endpoint, now: float) -> bool:
        """Whether the sender used the cookie that we give to ``source`` at this time."""
        if self._secret_since is None or now - self._secret_since >= COOKIE_SECRET_LIFETIME:
            return False
        expected = mac(self._cookie(source), datagram[:-MAC_SIZE])
        return hmac.compare_digest(expected, datagram[-MAC_SIZE:])

    def reply(self, datagram: bytes, source: Endpoint, now: float) -> bytes:
        """A cookie reply to a type 1 or 2 message whose mac1 is valid: 64 bytes, less than the question."""
        if self._secret_since is None or now - self._secret_since >= COOKIE_SECRET_LIFETIME:
            self._secret = self._random_bytes(HASH_SIZE)
            self._secret_since = now
        nonce = self._random_bytes(COOKIE_NONCE_SIZE)
        mac1 = datagram[-MACS_SIZE:-MAC_SIZE]
        sealed = _seal_cookie(self._cookie_key, nonce, self._cookie(source), mac1)
        return CookieReply(sender_index(datagram), nonce, sealed).pack()

    def _cookie(self, source: Endpoint) -> bytes:
        """Bound to the address and port that the message came from."""
        return mac(self._secret, source.pack())


class MacMaker:
    """The sending side, one per peer: appends the MACs and remembers the peer's cookie."""

    def __init__(self, peer_public_key: bytes) -> None:
        self._mac1_key = blake2s(LABEL_MAC1, peer_public_key)
        self._cookie_key = blake2s(LABEL_COOKIE, peer_public_key)
        self._cookie = b""
        self._cookie_since: float | None = None
        self._last_mac1: bytes | None = None

    def append(self, message: bytes, now: float) -> bytes:
        """``message`` with mac1, and with mac2 while a fresh cookie is known (zeros otherwise)."""
        mac1 = mac(self._mac1_key, message)
        self._last_mac1 = mac1
        message += mac1
        if self._cookie_since is None or now - self._cookie_since >= COOKIE_LIFETIME:
            return message + NO_MAC
        return message + mac(self._cookie, message)

    def learn(self, reply: CookieReply, now: float) -> None:
        """Keep the cookie of a reply to our last message; the next message uses it, and nothing is sent now
        (section 5.4.7). Raises DecodeError "cookie": not for our last message, or a forgery."""
        if self._last_mac1 is None:
            raise DecodeError("cookie")
        try:
            cookie: bytes = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                reply.cookie, self._last_mac1, reply.nonce, self._cookie_key
            )
        except CryptoError:
            raise DecodeError("cookie") from None
        if len(cookie) != COOKIE_SIZE:
            raise DecodeError("cookie")
        self._cookie = cookie
        self._cookie_since = now
        self._last_mac1 = None
