"""How many probes for a direct path may go where while packets take a relay. Pure; monotonic seconds.

A member names its own places, and may name a victim's; and it can keep up traffic for as long as it likes. So
an address gets no more than one small datagram a second from this node, however many members name it, beside
what :mod:`dhtvpn.nat.check_budget` allows of checks.
"""

from collections import OrderedDict
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.check_budget import MAX_REMEMBERED, site_of

SITE_BURST, SITE_RATE = 3.0, 1.0
"""Probes to an IPv4 address or IPv6 /64, at once and per second. Ours: 80 octets each at the wire."""

TOTAL_BURST, TOTAL_RATE = 100.0, 100.0
"""All probes of a node: 64 kbit/s, thirty relayed peers with traffic."""


class ProbeAllowance:
    """Token buckets, one for each place and one for all."""

    def __init__(self) -> None:
        self._sites: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens left, and when that was so."""
        self._total: Final = [TOTAL_BURST, 0.0]

    def take(self, destination: Endpoint, now: float) -> bool:
        """Whether a probe may go to ``destination`` now; then it counts as sent."""
        site = site_of(destination)
        left, at = self._sites.pop(site, (SITE_BURST, now))
        left = min(SITE_BURST, left + max(0.0, now - at) * SITE_RATE)
        total, total_at = self._total
        total = min(TOTAL_BURST, total + max(0.0, now - total_at) * TOTAL_RATE)
        allowed = left >= 1.0 and total >= 1.0
        self._sites[site] = (left - allowed, now)
        self._total[:] = [total - allowed, now]
        while len(self._sites) > MAX_REMEMBERED:
            self._sites.popitem(last=False)
        return allowed
