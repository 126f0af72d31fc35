"""How often one address is answered: a token bucket per source, in a capped table."""

from collections import OrderedDict
from dataclasses import dataclass

from dhtvpn.discovery.contact import address_block
from dhtvpn.endpoint import Endpoint

RATE_PER_S = 100.0
"""Requests per second that one IPv4 address or IPv6 /64 gets answered on average."""

BURST = 400.0
"""Requests at once: a few dozen nodes behind one NAT that all start together."""

MAX_SOURCES = 4096
"""Addresses in the table; the one seen longest ago makes room (and starts full when it comes back)."""


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class AnswerLimit:
    """Ask ``allows`` before anything of a request is parsed."""

    def __init__(self, rate_per_s: float = RATE_PER_S, burst: float = BURST) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def allows(self, source: Endpoint, now: float) -> bool:
        """Take one from the source's bucket; False when it is empty."""
        block = address_block(source)
        bucket = self._buckets.get(block)
        if bucket is None:
            bucket = self._buckets[block] = _Bucket(self._burst, now)
            if len(self._buckets) > MAX_SOURCES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(block)
        bucket.level = min(self._burst, bucket.level + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.level < 1.0:
            return False
        bucket.level -= 1.0
        return True

    def __len__(self) -> int:
        return len(self._buckets)
