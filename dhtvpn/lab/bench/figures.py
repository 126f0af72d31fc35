"""What is measured, in which unit, and what several rounds of it come to. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One number that a measurement yields. ``digits``: decimals worth printing."""

    key: str
    title: str
    unit: str
    digits: int
    more_is_better: bool
    meaning: str


FIGURES: tuple[Figure, ...] = (
    Figure("tcp_gbit_s", "1 stream", "Gbit/s", 2, True, "one TCP stream, left to right"),
    Figure("tcp4_gbit_s", "4 streams", "Gbit/s", 2, True, "four TCP streams, left to right, sum"),
    Figure("both_gbit_s", "both ways", "Gbit/s", 2, True, "a TCP stream each way at once, sum"),
    Figure("lossy_mbit_s", "lossy", "Mbit/s", 1, True, "one TCP stream over the lossy link"),
    Figure(
        "udp_kpackets_s", "64 B UDP", "kpkt/s", 1, True, "64-byte UDP packets that arrive at under 1% loss"
    ),
    Figure("ping_p50_ms", "p50", "ms", 3, False, "round trip, idle, median"),
    Figure("ping_p99_ms", "p99", "ms", 3, False, "round trip, idle, 99th percentile"),
    Figure("loaded_p50_ms", "loaded p50", "ms", 3, False, "round trip under a full TCP stream, median"),
    Figure(
        "loaded_p99_ms", "loaded p99", "ms", 3, False, "round trip under a full TCP stream, 99th percentile"
    ),
    Figure(
        "cpu_s_per_gb", "CPU s/GB", "s/GB", 2, False, "CPU time of the tunnel's processes, both ends, per GB"
    ),
    Figure("softirq_s_per_gb", "softirq s/GB", "s/GB", 2, False, "the machine's softirq time per GB"),
    Figure(
        "machine_s_per_gb",
        "machine s/GB",
        "s/GB",
        2,
        False,
        "all CPU time of the machine per GB, iperf3 included",
    ),
    Figure("memory_mb", "memory", "MB", 1, False, "memory of the larger node, shared pages once"),
    Figure("rss_mb", "RSS", "MB", 1, False, "resident set sizes of the larger node, shared pages each time"),
    Figure(
        "idle_percent", "idle CPU", "% of a core", 3, False, "CPU of the busier node while nothing is sent"
    ),
)

BY_KEY = {figure.key: figure for figure in FIGURES}


@dataclass(frozen=True)
class Summary:
    """One figure over all rounds, in the order taken; None where a round failed."""

    each: tuple[float | None, ...]

    @property
    def good(self) -> list[float]:
        return [value for value in self.each if value is not None]

    @property
    def failed(self) -> int:
        return len(self.each) - len(self.good)

    @property
    def median(self) -> float | None:
        return median(self.good) if self.good else None

    @property
    def low(self) -> float | None:
        return min(self.good, default=None)

    @property
    def high(self) -> float | None:
        return max(self.good, default=None)

    @property
    def spread(self) -> float | None:
        """Half the range over the median: 0.03 means that the rounds lay about 3% around it."""
        middle = self.median
        if not middle or self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2 / middle


def ratio(value: float | None, reference: float | None) -> float | None:
    """``value`` in terms of ``reference``; None where either is missing or there is nothing to divide by."""
    if value is None or not reference:
        return None
    return value / reference


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values, of which there is at least one."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]
