"""How many STUN answers a source, and everybody together, may have. Pure; ``now`` in monotonic seconds."""

import ipaddress
from collections import OrderedDict

SOURCE_RATE, SOURCE_BURST = 10.0, 50.0
"""Answers per second, and at once, to one IPv4 address or IPv6 /64. Ours: a carrier NAT's worth of nodes."""

TOTAL_RATE, TOTAL_BURST = 2000.0, 4000.0
"""The same for everybody together. Ours: 0.7 Mbit/s, for when sources are forged."""

MAX_SOURCES = 4096
"""Sources remembered; the one not heard of for longest goes first."""


class _Bucket:
    """A token bucket. ``now`` in monotonic seconds."""

    __slots__ = ("_tokens", "_updated")

    def __init__(self, burst: float, now: float) -> None:
        self._tokens = burst
        self._updated = now

    def take(self, now: float, rate: float, burst: float) -> bool:
        self._tokens = min(burst, self._tokens + max(0.0, now - self._updated) * rate)
        self._updated = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class SourceLimit:
    """Pure: may this source have another answer? Keeps at most MAX_SOURCES buckets."""

    def __init__(self, now: float) -> None:
        self._total = _Bucket(TOTAL_BURST, now)
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sources)

    def allows(self, host: str, now: float) -> bool:
        """Take one answer from the source's share and from the total."""
        source = host if ":" not in host else str(ipaddress.IPv6Network((host, 64), strict=False))
        bucket = self._sources.get(source)
        if bucket is None:
            while len(self._sources) >= MAX_SOURCES:
                self._sources.popitem(last=False)
            bucket = self._sources[source] = _Bucket(SOURCE_BURST, now)
        else:
            self._sources.move_to_end(source)
        return bucket.take(now, SOURCE_RATE, SOURCE_BURST) and self._total.take(now, TOTAL_RATE, TOTAL_BURST)
