"""Who watches which topic at this storing node: leases of proven addresses, capped."""

from collections import Counter

from dhtvpn.discovery.contact import address_block
from dhtvpn.endpoint import Endpoint

LEASE_S = 60
"""A watcher renews every 25 s, so two renewals may be lost."""

MAX_PER_TOPIC = 128
"""Watchers of one topic: as many as it can have slots."""

MAX_TOTAL = 8192
"""Subscriptions in total, about 2 MB."""

MAX_PER_ADDRESS = 256
"""Subscriptions of one IPv4 address or IPv6 /64."""


class Subscriptions:
    """Topic to watcher to the end of its lease (monotonic seconds)."""

    def __init__(
        self,
        *,
        max_per_topic: int = MAX_PER_TOPIC,
        max_total: int = MAX_TOTAL,
        max_per_address: int = MAX_PER_ADDRESS,
    ) -> None:
        self._max_per_topic, self._max_total = max_per_topic, max_total
        self._max_per_address = max_per_address
        self._topics: dict[bytes, dict[Endpoint, float]] = {}
        self._per_block: Counter[str] = Counter()
        self._count = 0

    def subscribe(self, dht_key: bytes, watcher: Endpoint, now: float) -> bool:
        """Start or renew a lease; False when a cap is reached. The caller has checked the write token."""
        watchers = self._topics.get(dht_key, {})
        if watcher not in watchers:
            if self._full(dht_key, watcher):
                self.expire(now)
            if self._full(dht_key, watcher):
                return False
            self._count += 1
            self._per_block[address_block(watcher)] += 1
        self._topics.setdefault(dht_key, {})[watcher] = now + LEASE_S
        return True

    def watchers(self, dht_key: bytes, now: float) -> list[Endpoint]:
        """Those whose lease lasts, in the order in which they came."""
        return [watcher for watcher, until in self._topics.get(dht_key, {}).items() if until > now]

    def holds(self, dht_key: bytes, watcher: Endpoint, now: float) -> bool:
        """Whether its lease lasts: it has acknowledged every push until now."""
        return self._topics.get(dht_key, {}).get(watcher, now) > now

    def drop(self, dht_key: bytes, watcher: Endpoint) -> None:
        """It did not acknowledge a push, or says that it is not watching."""
        watchers = self._topics.get(dht_key, {})
        if watchers.pop(watcher, None) is None:
            return
        if not watchers:
            del self._topics[dht_key]
        block = address_block(watcher)
        self._count -= 1
        self._per_block[block] -= 1
        if self._per_block[block] <= 0:
            del self._per_block[block]

    def expire(self, now: float) -> None:
        """Drop every lease that has ended."""
        ended = [
            (dht_key, watcher)
            for dht_key, watchers in self._topics.items()
            for watcher, until in watchers.items()
            if until <= now
        ]
        for dht_key, watcher in ended:
            self.drop(dht_key, watcher)

    def __len__(self) -> int:
        return self._count

    def _full(self, dht_key: bytes, watcher: Endpoint) -> bool:
        return (
            self._count >= self._max_total
            or len(self._topics.get(dht_key, {})) >= self._max_per_topic
            or self._per_block[address_block(watcher)] >= self._max_per_address
        )
