"""What the experiments measure, as plain numbers for tables, JSON and plots."""

import math
from dataclasses import dataclass
from statistics import mean, quantiles


@dataclass(frozen=True)
class LookupFigures:
    """Many lookups under one condition. Times in seconds, of the lookups that found the record."""

    nodes: int
    dead_percent: float
    hostile_percent: float
    lookups: int
    found: int
    """Lookups that delivered the newest envelope of the record, last of its slot."""
    forged: int
    """Envelopes delivered that no member has sealed, or that do not open: must be 0."""
    rolled_back: int
    """Lookups that found the record, but ended with an old envelope of it."""
    first_s: dict[str, float]
    """Until the newest envelope was delivered: p50, p95, p99."""
    whole_s: dict[str, float]
    """Until the closest live nodes had all been asked, which ends the search."""
    publish_s: dict[str, float]
    confirmed: float
    """Storing nodes that confirmed a publication, on average."""
    rounds: float
    datagrams: float
    """Per lookup, sent and received, at the node that looks; on average. Also the octets."""
    octets_sent: float
    octets_received: float
    escaped: int
    """Exceptions that escaped a handler or a task: must be 0."""

    @property
    def success_percent(self) -> float:
        return 100.0 * self.found / self.lookups


@dataclass(frozen=True)
class HeldFigures:
    """What one storing node holds for others: mean over the nodes and over samples during the hours."""

    envelopes: float
    stored_octets: float
    """Of the envelopes with their bookkeeping, as ``Storage.size_bytes`` counts them against the cap."""
    floors: float
    subscriptions: float
    octets: float
    """Memory of all three, each entry counted at the most that it costs (discovery/caps.py)."""
    worst_octets: float
    """Of the node with most, when it had most."""


@dataclass(frozen=True)
class RestFigures:
    """Traffic of nodes that have nothing to do, with headers. Octets per second; mean over the nodes."""

    kind: str
    """"member" or "storing"."""
    nodes: int
    hours: float
    measured: int
    """How many nodes the mean is of."""
    sent: float
    received: float
    worst_sent: float
    """Of the node with most."""
    worst_received: float
    datagrams_per_s: float
    """Both ways together."""
    members: int
    """That rest in the whole population."""
    held: HeldFigures | None = None
    """Of storing nodes."""


@dataclass(frozen=True)
class WatchFigures:
    """What members learnt of each other during the hours at rest."""

    expected: int
    """Checks, every ten minutes, of one member's roster for one other member."""
    known: int
    joins: int
    """Members that joined while others watched; their records were waited for."""
    seen: int
    seen_s: dict[str, float]
    """From the moment the newcomer began to publish until a watching member had its record."""


@dataclass(frozen=True)
class Growth:
    """How the datagrams per lookup grow: least squares of ``intercept + slope * log2(n)``."""

    slope: float
    intercept: float
    r_squared: float
    exponent: float
    """Of the power law n^exponent that fits best; log n has less than 0.2 here, a linear cost 1."""

    def datagrams(self, nodes: int) -> float:
        """What the fit says for this number of nodes."""
        return self.intercept + self.slope * math.log2(nodes)

    @staticmethod
    def log_ratio(fewest: int, most: int) -> float:
        """How much log n grows between the two."""
        return math.log(most) / math.log(fewest)


@dataclass(frozen=True)
class Figures:
    """Everything that one run has measured."""

    seed: int
    nodes: int
    rtt_s: dict[int, float]
    """Percentiles of the round trip between two sites."""
    loss: float
    by_size: list[LookupFigures]
    """Nothing wrong, by number of nodes; the last one at ``nodes``."""
    by_condition: list[LookupFigures]
    """At ``nodes``, with dead or hostile ones among them."""
    growth: Growth | None
    rest: list[RestFigures]
    watch: WatchFigures | None


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99; all 0 when there is nothing to rank."""
    if len(values) < 2:
        only = values[0] if values else 0.0
        return {"p50": only, "p95": only, "p99": only}
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def average(values: list[float] | list[int]) -> float:
    return float(mean(values)) if values else 0.0
