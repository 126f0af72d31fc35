"""Write tokens: proof that the sender of a request receives at its source address (BEP 5).

The issuer keeps no table: a token is a keyed hash of the endpoint under a secret that changes every five
minutes; the one before it is still accepted, so a token lives for five to ten minutes.
"""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable

from dhtvpn.discovery.wire import TOKEN_LENGTH
from dhtvpn.endpoint import Endpoint

ROTATE_S = 300.0
"""BEP 5: "tokens up to ten minutes old are accepted", with a secret that changes every five."""

HELD_FOR_S = 270.0
"""How long we use a token of someone else's: under the five minutes that it surely lives."""

MAX_HELD = 4096
"""Tokens of others that we keep; about 0.5 MB."""


class TokenIssuer:
    """Issues and checks our own tokens."""

    def __init__(self, random_bytes: Callable[[int], bytes], now: float) -> None:
        self._random_bytes = random_bytes
        self._secret = self._previous = random_bytes(32)
        self._rotate_at = now + ROTATE_S

    def issue(self, endpoint: Endpoint, now: float) -> bytes:
        """The token that ``endpoint`` may use from now on."""
        self._rotate(now)
        return _token(self._secret, endpoint)

    def valid(self, token_untrusted: bytes, endpoint: Endpoint, now: float) -> bool:
        """Whether we issued it to that endpoint in the last five to ten minutes."""
        self._rotate(now)
        current = hmac.compare_digest(token_untrusted, _token(self._secret, endpoint))
        previous = hmac.compare_digest(token_untrusted, _token(self._previous, endpoint))
        return current or previous

    def _rotate(self, now: float) -> None:
        if now < self._rotate_at:
            return
        idle = now >= self._rotate_at + ROTATE_S
        self._previous = self._random_bytes(32) if idle else self._secret
        self._secret = self._random_bytes(32)
        self._rotate_at = now + ROTATE_S


class TokensHeld:
    """Tokens that others issued to us, by their endpoint."""

    def __init__(self) -> None:
        self._held: OrderedDict[Endpoint, tuple[bytes, float]] = OrderedDict()

    def keep(self, endpoint: Endpoint, token: bytes, now: float) -> None:
        """Remember ``token``; the one that was renewed longest ago makes room."""
        if len(token) != TOKEN_LENGTH:
            return
        self._held[endpoint] = (token, now)
        self._held.move_to_end(endpoint)
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)

    def get(self, endpoint: Endpoint, now: float) -> bytes:
        """A token to use at ``endpoint``, or ``b""``."""
        token, since = self._held.get(endpoint, (b"", now))
        return token if now - since < HELD_FOR_S else b""

    def forget(self, endpoint: Endpoint) -> None:
        """The issuer refused it."""
        self._held.pop(endpoint, None)

    def __len__(self) -> int:
        return len(self._held)


def _token(secret: bytes, endpoint: Endpoint) -> bytes:
    return hashlib.blake2b(
        endpoint.pack(), key=secret, digest_size=TOKEN_LENGTH, person=b"dhtvpn-token"
    ).digest()
