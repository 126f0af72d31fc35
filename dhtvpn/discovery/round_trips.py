"""How long to wait for a node before asking somebody else too: round trips, smoothed as TCP does (RFC 6298).

A node that has answered before is judged by its own round trips, a stranger by those of all others. What
comes of it is a soft timeout: a later answer still counts, so to be wrong costs one query too many.
Pure: ``now`` in monotonic seconds.
"""

from collections import OrderedDict
from dataclasses import dataclass

from dhtvpn.endpoint import Endpoint

INITIAL_S = 0.25
"""While nobody has answered yet; three median round trips of the internet. RFC 6298's second (section 2.1)
is for a timer that sends again."""

MIN_S = 0.1
"""At least; below it, delays of a busy machine would pass for dead nodes."""

MAX_S = 1.0
"""At most, however slow the others are: a dead node costs a lookup this."""

GAIN, VARIANCE_GAIN = 1 / 8, 1 / 4
"""alpha and beta of RFC 6298, section 2.3."""

SHARED_GAIN = 1 / 32
"""For the estimate over all nodes: its samples come from many paths, and some ten of them in one round trip,
so each must count for less (RFC 7323, appendix G)."""

VARIANCES = 4
"""K of RFC 6298."""

AMBIGUOUS_S = 0.5
"""From here on an answer may be to the request's repetition (Karn's algorithm, RFC 6298 section 3). Such a
sample counts only until there is a clear one; a satellite link gives no others."""

FRESH_S = 3600.0
"""After this long a node's own history says no more than that of all others."""

MAX_NODES = 2048
"""Nodes with a history; the one not heard of for longest makes room."""


@dataclass(slots=True)
class Estimate:
    """Smoothed round trip and its mean deviation, in seconds."""

    srtt_s: float = 0.0
    rttvar_s: float = 0.0
    samples: int = 0
    clear: bool = False
    heard_at: float = 0.0

    def heard(self, rtt_s: float, now: float, gain: float, variance_gain: float) -> None:
        """A sample. The first ones are averaged, so that none of them counts for more than its share."""
        self.heard_at = now
        clear = rtt_s < AMBIGUOUS_S
        if self.clear and not clear:
            return
        if clear and not self.clear:
            self.samples, self.clear = 0, True
        self.samples += 1
        if self.samples == 1:
            self.srtt_s, self.rttvar_s = rtt_s, rtt_s / 2
            return
        weight = 1 / self.samples
        self.rttvar_s += max(variance_gain, weight) * (abs(self.srtt_s - rtt_s) - self.rttvar_s)
        self.srtt_s += max(gain, weight) * (rtt_s - self.srtt_s)

    @property
    def timeout_s(self) -> float:
        """Between MIN_S and MAX_S; INITIAL_S without a sample."""
        if not self.samples:
            return INITIAL_S
        return min(max(self.srtt_s + VARIANCES * self.rttvar_s, MIN_S), MAX_S)


class RoundTrips:
    """The estimates of single nodes, and one of all together."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[Endpoint, Estimate] = OrderedDict()
        self._all = Estimate()

    def heard(self, endpoint: Endpoint, rtt_s: float, now: float) -> None:
        """``endpoint`` answered a request ``rtt_s`` after it was first sent."""
        estimate = self._nodes.setdefault(endpoint, Estimate())
        self._nodes.move_to_end(endpoint)
        estimate.heard(rtt_s, now, GAIN, VARIANCE_GAIN)
        self._all.heard(rtt_s, now, SHARED_GAIN, SHARED_GAIN)
        if len(self._nodes) > MAX_NODES:
            self._nodes.popitem(last=False)

    def timeout_s(self, endpoint: Endpoint, now: float) -> float:
        """How long an answer of ``endpoint`` is waited for before somebody else is asked as well."""
        estimate = self._nodes.get(endpoint)
        if estimate is None or now - estimate.heard_at > FRESH_S:
            return self.stranger_timeout_s
        return estimate.timeout_s

    @property
    def stranger_timeout_s(self) -> float:
        """The same for a node that we know nothing of."""
        return self._all.timeout_s

    def __len__(self) -> int:
        """Nodes with a history of their own."""
        return len(self._nodes)
