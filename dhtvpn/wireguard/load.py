"""How much handshake work is taken on: the load meter, rates per source address, and a plain budget.

All are bounded in memory and take ``now`` in monotonic seconds.
"""

import ipaddress
from collections.abc import Callable
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.wireguard.constants import (
    MAX_RATED_SOURCES,
    SOURCE_RATE_BURST,
    SOURCE_RATE_PER_S,
    UNDER_LOAD_HANDSHAKES_PER_S,
    UNDER_LOAD_LINGER,
)

UnderLoad = Callable[[float], bool]
"""Asked once per handshake message with a valid mac1: does the sender need a cookie now?"""

_WINDOW: Final = 1.0  # seconds over which a budget counts


class Budget:
    """At most ``limit`` uses in each window of one second."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._since: float | None = None

    def take(self, now: float) -> bool:
        """True while the budget of this second lasts."""
        if self._since is None or now - self._since >= _WINDOW:
            self._since = now
            self._used = 0
        if self._used >= self._limit:
            return False
        self._used += 1
        return True


class LoadMeter:
    """The default decision: under load past UNDER_LOAD_HANDSHAKES_PER_S, and for a second after that."""

    def __init__(self, limit: int = UNDER_LOAD_HANDSHAKES_PER_S) -> None:
        self._budget = Budget(limit)
        self._until: float | None = None

    def __call__(self, now: float) -> bool:
        if not self._budget.take(now):
            self._until = now + UNDER_LOAD_LINGER
        return self._until is not None and now < self._until


class SourceRates:
    """A token bucket per source address (per /64 for IPv6). While the table is full, new ones are refused."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, tuple[float, float]] = {}  # tokens, and when they were counted
        self._swept: float | None = None

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, source: Endpoint, now: float) -> bool:
        """Whether one more message of ``source`` is worth an answer."""
        key = ipaddress.ip_address(source.host).packed[:8]
        known = self._buckets.get(key)
        if known is None:
            if len(self._buckets) >= MAX_RATED_SOURCES and not self._sweep(now):
                return False
            tokens = float(SOURCE_RATE_BURST)
        else:
            tokens = min(SOURCE_RATE_BURST, known[0] + (now - known[1]) * SOURCE_RATE_PER_S)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        return allowed

    def _sweep(self, now: float) -> bool:
        """Forget the sources whose bucket is full again, once a second; True if there is room now."""
        if self._swept is not None and now - self._swept < _WINDOW:
            return False
        self._swept = now
        refill_s = SOURCE_RATE_BURST / SOURCE_RATE_PER_S
        self._buckets = {key: value for key, value in self._buckets.items() if now - value[1] < refill_s}
        return len(self._buckets) < MAX_RATED_SOURCES
