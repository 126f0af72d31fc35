"""What came out of one or several runs: a table for a person, an object for a program. Pure.

``to_json``: ``topology``, ``runs``, ``ok``, and ``pairs``, a list of: ``pair`` (two names), ``nat``
(two labels), ``expected`` (``direct``, ``relay``, ``none``), ``path`` (``direct``, ``relayed``, null),
``connected`` (in every run), ``first_reply_s`` with ``median``, ``worst`` and ``each`` (one per run,
null where none came), ``ipv6`` (its overlay address answered in every run), ``rtt_ms`` and
``tcp_mbit_s`` (medians or null).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from dhtvpn.lab.experiment import PairResult
from dhtvpn.lab.topology import Topology

NO_DIRECT_PATH = "none"
NO_IPV6 = "no IPv6"
FAILED = "FAILED"

LEGEND = {
    "EIM": "endpoint-independent mapping",
    "APDM": "address-and-port-dependent mapping",
    "EIF": "endpoint-independent filtering",
    "ADF": "address-dependent filtering",
    "APDF": "address-and-port-dependent filtering",
    "+6": "and an IPv6 address that is routed, not translated",
    NO_IPV6: "the overlay's IPv4 address answers, its IPv6 address does not",
    NO_DIRECT_PATH: "these NATs leave no direct path; only a relay could join the two",
}


@dataclass(frozen=True)
class PairSummary:
    """One pair over all runs, in the order of the runs."""

    runs: tuple[PairResult, ...]

    @property
    def first(self) -> PairResult:
        return self.runs[0]

    @property
    def connected(self) -> bool:
        return all(run.connected for run in self.runs)

    @property
    def as_expected(self) -> bool:
        return all(run.as_expected for run in self.runs)

    @property
    def path(self) -> str | None:
        """The path of the last run that had one."""
        paths = [run.path for run in self.runs if run.path is not None]
        return paths[-1] if paths else None

    @property
    def first_reply_median_s(self) -> float | None:
        """None where a run had no reply: a median over the good ones would flatter."""
        times = [run.first_reply_s for run in self.runs if run.first_reply_s is not None]
        return median(times) if len(times) == len(self.runs) else None

    @property
    def first_reply_worst_s(self) -> float | None:
        times = [run.first_reply_s for run in self.runs if run.first_reply_s is not None]
        return max(times) if len(times) == len(self.runs) else None

    @property
    def rtt_ms(self) -> float | None:
        return _median_or_none([run.rtt_ms for run in self.runs])

    @property
    def tcp_mbit_s(self) -> float | None:
        return _median_or_none([run.tcp_mbit_s for run in self.runs])


@dataclass(frozen=True)
class Report:
    """All pairs of one topology over all runs."""

    topology: Topology
    runs: int
    pairs: tuple[PairSummary, ...]

    @property
    def ok(self) -> bool:
        """Whether every pair that has a direct path connected in every run."""
        return all(pair.as_expected for pair in self.pairs)


def summarise(topology: Topology, runs: Sequence[Sequence[PairResult]]) -> Report:
    """Collect the results of several runs of one topology, pair by pair."""
    by_pair: dict[tuple[str, str], list[PairResult]] = {}
    for run in runs:
        for result in run:
            by_pair.setdefault((result.one, result.other), []).append(result)
    pairs = tuple(PairSummary(tuple(results)) for results in by_pair.values())
    return Report(topology, len(runs), pairs)


def to_json(report: Report) -> dict[str, Any]:
    """The object described in the module's docstring."""
    return {
        "topology": report.topology.name,
        "runs": report.runs,
        "ok": report.ok,
        "pairs": [
            {
                "pair": [pair.first.one, pair.first.other],
                "nat": [pair.first.nat_one, pair.first.nat_other],
                "expected": pair.first.expected.value,
                "path": pair.path,
                "connected": pair.connected,
                "first_reply_s": {
                    "median": _rounded(pair.first_reply_median_s, 3),
                    "worst": _rounded(pair.first_reply_worst_s, 3),
                    "each": [_rounded(run.first_reply_s, 3) for run in pair.runs],
                },
                "ipv6": all(run.ipv6 for run in pair.runs),
                "rtt_ms": _rounded(pair.rtt_ms, 3),
                "tcp_mbit_s": _rounded(pair.tcp_mbit_s, 1),
            }
            for pair in report.pairs
        ],
    }


def to_table(report: Report) -> Table:
    """A table that fits 80 columns for the named topologies."""
    several = report.runs > 1
    title = f"{report.topology.name}: {report.runs} runs" if several else report.topology.name
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("pair", no_wrap=True)
    table.add_column("NAT", no_wrap=True)
    table.add_column("path")
    table.add_column("median s" if several else "first s", justify="right", no_wrap=True)
    if several:
        table.add_column("worst s", justify="right", no_wrap=True)
    table.add_column("RTT ms", justify="right")
    table.add_column("Mbit/s", justify="right")
    for pair in report.pairs:
        worst = [_shown(pair.first_reply_worst_s, 2)] if several else []
        table.add_row(
            f"{pair.first.one} - {pair.first.other}",
            f"{pair.first.nat_one} - {pair.first.nat_other}",
            _path_word(pair),
            _first_reply_words(pair),
            *worst,
            _shown(pair.rtt_ms, 2),
            _shown(pair.tcp_mbit_s, 0),
        )
    return table


def legend(report: Report) -> str:
    """What the short words in the table mean, only those that occur."""
    labels = {label for pair in report.pairs for label in (pair.first.nat_one, pair.first.nat_other)}
    words = {
        word for label in labels for part in label.removesuffix("+6").split() for word in part.split("/")
    }
    if any(label.endswith("+6") for label in labels):
        words.add("+6")
    words.update(_path_word(pair) for pair in report.pairs)
    return "\n".join(f"{word}: {meaning}" for word, meaning in LEGEND.items() if word in words)


def _path_word(pair: PairSummary) -> str:
    if pair.connected:
        return pair.path or "unknown"
    if pair.as_expected:
        return NO_DIRECT_PATH
    return FAILED if pair.first_reply_median_s is None else NO_IPV6


def _first_reply_words(pair: PairSummary) -> str:
    lost = sum(not run.connected for run in pair.runs)
    if lost > 0 and len(pair.runs) > 1:
        return f"{lost}/{len(pair.runs)} lost"
    return _shown(pair.first_reply_median_s, 2)


def _median_or_none(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return median(present) if present else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
