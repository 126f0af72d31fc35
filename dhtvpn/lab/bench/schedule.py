"""In which order things are measured: interleaved, so that a busy minute hits every tunnel. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from dhtvpn.errors import UsageError


@dataclass(frozen=True)
class Measure:
    """One measurement by name. ``together``: of all tunnels at once; ``quick``: also in a quick run."""

    name: str
    figures: tuple[str, ...]
    quick: bool = True
    together: bool = False


MEASURES: tuple[Measure, ...] = (
    Measure("tcp", ("tcp_gbit_s", "cpu_s_per_gb", "softirq_s_per_gb", "machine_s_per_gb")),
    Measure("tcp4", ("tcp4_gbit_s",), quick=False),
    Measure("both", ("both_gbit_s",), quick=False),
    Measure("udp", ("udp_kpackets_s",)),
    Measure("ping", ("ping_p50_ms", "ping_p99_ms")),
    Measure("loaded", ("loaded_p50_ms", "loaded_p99_ms")),
    Measure("lossy", ("lossy_mbit_s",)),
    Measure("memory", ("memory_mb", "rss_mb")),
    Measure("idle", ("idle_percent",), together=True),
)


@dataclass(frozen=True)
class Step:
    """One measurement of one tunnel in one round; ``tunnel`` is None for all at once."""

    round: int
    measure: Measure
    tunnel: str | None


def chosen(names: Sequence[str], quick: bool) -> list[Measure]:
    """The measures of those names in our order, or all that the kind of run has. Raises UsageError."""
    known = [measure.name for measure in MEASURES]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no measurement {name!r}: choose from {', '.join(known)}")
    if names:
        return [measure for measure in MEASURES if measure.name in names]
    return [measure for measure in MEASURES if measure.quick or not quick]


def steps(rounds: int, measures: Sequence[Measure], tunnels: Sequence[str]) -> list[Step]:
    """Round by round, in each round measure by measure, of each one all tunnels in turn.

    Every round starts with another tunnel, so that none always follows the same one.
    """
    planned = []
    for number in range(1, rounds + 1):
        first = (number - 1) % len(tunnels) if tunnels else 0
        turn = [*tunnels[first:], *tunnels[:first]]
        for measure in measures:
            takers = [None] if measure.together else turn
            planned += [Step(number, measure, tunnel) for tunnel in takers]
    return planned
