"""How long a datagram takes: places on a plane, and an access line with a delay of its own at each end.

Unlike delays drawn for each pair, this keeps to what routing tables live from: a site with a slow line is
slow for everybody, and near sites are near to each other's neighbours too. The long tail comes from the
access lines (log-normal). The whole is scaled so that the median round trip is exact.
"""

import math
import random
from statistics import median, quantiles

MEDIAN_RTT_S = 0.080
ACCESS_MEDIAN = 0.12
"""Of one end's line, as a share of the side of the plane on which the sites lie."""

ACCESS_SIGMA = 1.1
JITTER = 0.1
"""A datagram takes up to this share longer than the one before."""

SAMPLE_PAIRS = 20_000


class Latencies:
    """Delays between numbered sites."""

    def __init__(self, count: int, rng: random.Random, median_rtt_s: float = MEDIAN_RTT_S) -> None:
        self._random = rng.random
        self._places = [(rng.random(), rng.random()) for _ in range(count)]
        self._access = [ACCESS_MEDIAN * rng.lognormvariate(0.0, ACCESS_SIGMA) for _ in range(count)]
        self._scale_s = 1.0
        pairs = [(rng.randrange(count), rng.randrange(count)) for _ in range(SAMPLE_PAIRS)]
        raw = [self.rtt_s(a, b) for a, b in pairs if a != b]
        self._scale_s = median_rtt_s / median(raw)
        cuts = quantiles(raw, n=100)
        self.percentiles_s = {p: cuts[p - 1] * self._scale_s for p in (50, 95, 99)}
        """Of the round trip between two sites, in seconds, without jitter."""

    def rtt_s(self, a: int, b: int) -> float:
        """Round trip without jitter."""
        (ax, ay), (bx, by) = self._places[a], self._places[b]
        return 2 * self._scale_s * (math.hypot(ax - bx, ay - by) + self._access[a] + self._access[b])

    def one_way_s(self, a: int, b: int) -> float:
        """One datagram's delay from ``a`` to ``b``."""
        return self.rtt_s(a, b) / 2 * (1.0 + JITTER * self._random())
