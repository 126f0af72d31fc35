"""Write tokens: proof that the sender of a request receives at its source address (BEP 5).

The issuer keeps no table: a token is a keyed hash of the endpoint under a secret that changes every five
minutes; the two before it are still accepted, so a token lives for ten to fifteen minutes. The secrets, and
the one that comes next, may be kept on disk: then a node that was restarted accepts what it issued before.
"""

import hashlib
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dhtvpn.discovery.wire import TOKEN_LENGTH
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DamagedStateError, SystemRefusedError
from dhtvpn.files import read_json, write_json

log = logging.getLogger(__name__)

ROTATE_S: Final = 300.0
"""BEP 5: "tokens up to ten minutes old are accepted", with a secret that changes every five."""

ACCEPTED: Final = 3
"""Secrets that are accepted: the one in use since up to 300 s and the two before it."""

SECRET_LENGTH: Final = 32
VERSION: Final = 1

HELD_FOR_S = 270.0
"""How long we use a token of someone else's: under the five minutes that it surely lives."""

MAX_HELD = 4096
"""Tokens of others that we keep; about 0.5 MB."""


class TokenIssuer:
    """Issues and checks our own tokens. ``now`` in monotonic seconds."""

    def __init__(self, random_bytes: Callable[[int], bytes], now: float) -> None:
        self._random_bytes = random_bytes
        self._next = random_bytes(SECRET_LENGTH)
        self._secrets = [random_bytes(SECRET_LENGTH) for _ in range(ACCEPTED)]  # the newest first
        self._rotate_at = now + ROTATE_S

    def __repr__(self) -> str:
        return "TokenIssuer()"

    def issue(self, endpoint: Endpoint, now: float) -> bytes:
        """The token that ``endpoint`` may use from now on."""
        self._rotate(now)
        return _token(self._secrets[0], endpoint)

    def valid(self, token_untrusted: bytes, endpoint: Endpoint, now: float) -> bool:
        """Whether we issued it to that endpoint in the last ten to fifteen minutes."""
        if len(token_untrusted) != TOKEN_LENGTH:
            return False
        self._rotate(now)
        found = [hmac.compare_digest(token_untrusted, _token(key, endpoint)) for key in self._secrets]
        return any(found)

    def state(self, now: float) -> dict[str, Any]:
        """For the disk: the secrets, also the next one, so that a state of up to 300 s ago still serves,
        and how old the newest is."""
        self._rotate(now)
        return {
            "secrets": [secret.hex() for secret in (self._next, *self._secrets)],
            "age_s": round(max(0.0, now - (self._rotate_at - ROTATE_S)), 3),
        }

    def restore(self, state: dict[str, Any], elapsed_s: float, now: float) -> None:
        """Go on from what :meth:`state` gave ``elapsed_s`` ago. Raises ValueError, TypeError or KeyError."""
        secrets = [bytes.fromhex(text) for text in state["secrets"]]
        age_s = float(state["age_s"])
        if [len(secret) for secret in secrets] != [SECRET_LENGTH] * (ACCEPTED + 1):
            raise ValueError("secrets")
        if not 0 <= age_s <= ROTATE_S or not elapsed_s >= 0:
            raise ValueError("age")
        self._next, *self._secrets = secrets
        self._rotate_at = now - elapsed_s - age_s + ROTATE_S
        self._rotate(now)

    def _rotate(self, now: float) -> None:
        """As often as it was due; after a long silence everything is new."""
        for _ in range(ACCEPTED + 1):
            if now < self._rotate_at:
                return
            self._secrets = [self._next, *self._secrets[:-1]]
            self._next = self._random_bytes(SECRET_LENGTH)
            self._rotate_at += ROTATE_S
        if now >= self._rotate_at:
            self._rotate_at = now + ROTATE_S


class KeptTokens:
    """The issuer's secrets in one file, 0600, replaced atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: list[str] = []

    def load(self, issuer: TokenIssuer, now: float, unix_time: float) -> bool:
        """Whether ``issuer`` goes on with secrets from the disk. A file that is damaged, too old or from the
        future is no loss: whoever shows an old token is given a new one."""
        try:
            value = read_json(self._path)
            if value is None:
                return False
            if value["version"] != VERSION:
                raise ValueError("version")
            issuer.restore(value, unix_time - float(value["saved_at"]), now)
        except (DamagedStateError, SystemRefusedError) as error:
            log.warning("%s: starting with new write tokens", error)
            return False
        except (ValueError, TypeError, KeyError, OverflowError):
            log.warning("%s is damaged or from the future: starting with new write tokens", self._path)
            return False
        return True

    def save(self, issuer: TokenIssuer, now: float, unix_time: float) -> None:
        """Write, unless the same secrets stand there already. Raises SystemRefusedError."""
        state = issuer.state(now)
        if state["secrets"] != self._written:
            write_json(self._path, {"version": VERSION, "saved_at": round(unix_time, 3), **state})
            self._written = state["secrets"]


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
