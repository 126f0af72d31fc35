"""Who watches which topic at this storing node: leases of proven addresses, capped and fairly shared."""

from dhtvpn.discovery.shares import Shares, holder_of
from dhtvpn.endpoint import Endpoint

LEASE_S = 60
"""A watcher renews every 25 s, so two renewals may be lost."""

MAX_PER_TOPIC = 128
"""Watchers of one topic: as many as it can have slots."""

MAX_TOTAL = 4096
"""Subscriptions in total, of SUBSCRIPTION_OVERHEAD each at most."""

MAX_PER_ADDRESS = 256
"""Subscriptions of one IPv4 address or IPv6 /64."""

SUBSCRIPTION_OVERHEAD = 1300
"""Octets of memory for one that has topic, address and prefix to itself, measured with tracemalloc
(test_subscriptions_cost_what_they_are_counted_as)."""


class Subscriptions:
    """Topic to watcher to the end of its lease (monotonic seconds). When a topic, or the whole, is full, the
    prefix with the most subscriptions gives way, as in storage (shares.py)."""

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
        self._of_address: dict[bytes, dict[tuple[bytes, Endpoint], None]] = {}
        self._shares = Shares()
        self._count = 0
        self._soonest = float("-inf")

    def subscribe(self, dht_key: bytes, watcher: Endpoint, now: float) -> bool:
        """Start or renew a lease; False when a cap is reached. The caller has checked the write token."""
        watchers = self._topics.get(dht_key, {})
        if watcher not in watchers:
            if self._full(dht_key, watcher) and now >= self._soonest:
                self.expire(now)
            if self._full(dht_key, watcher) and not self._make_room(dht_key, watcher):
                return False
            holder = holder_of(watcher)
            self._count += 1
            self._shares.add(holder, 1)
            self._of_address.setdefault(holder.address, {})[dht_key, watcher] = None
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
        holder = holder_of(watcher)
        self._count -= 1
        self._shares.add(holder, -1)
        mine = self._of_address[holder.address]
        del mine[dht_key, watcher]
        if not mine:
            del self._of_address[holder.address]

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
        leases = (until for watchers in self._topics.values() for until in watchers.values())
        self._soonest = min(leases, default=now)

    def __len__(self) -> int:
        return self._count

    def _full(self, dht_key: bytes, watcher: Endpoint) -> bool:
        return (
            self._count >= self._max_total
            or len(self._topics.get(dht_key, {})) >= self._max_per_topic
            or len(self._of_address.get(holder_of(watcher).address, {})) >= self._max_per_address
        )

    def _make_room(self, dht_key: bytes, watcher: Endpoint) -> bool:
        """End the oldest lease of whoever has the most, unless the newcomer would then have more."""
        newcomer = holder_of(watcher)
        if len(self._of_address.get(newcomer.address, {})) >= self._max_per_address:
            return False
        watchers = self._topics.get(dht_key, {})
        if len(watchers) >= self._max_per_topic:
            gives = _shares_of(watchers).gives_way_to(newcomer, 1)
            ends = [
                other for other in watchers if gives not in (None, newcomer) and holder_of(other) == gives
            ]
            if not ends:
                return False
            self.drop(dht_key, ends[0])
        if self._count >= self._max_total:
            gives = self._shares.gives_way_to(newcomer, 1)
            if gives is None or gives == newcomer:
                return False
            self.drop(*next(iter(self._of_address[gives.address])))
        return True


def _shares_of(watchers: dict[Endpoint, float]) -> Shares:
    """Of one topic: few enough to be counted anew."""
    shares = Shares()
    for watcher in watchers:
        shares.add(holder_of(watcher), 1)
    return shares
