"""What came out of the matrix: a table for a person, an object for a program. Pure.

``to_json``: ``ok``; ``settings``; ``summary`` with ``pairs``, ``connected`` and ``direct`` (how many in every
run), ``first_reply_s`` (``median`` and ``worst`` over all runs of all pairs) and ``within_limits``;
``complaints``, a list of ``pair`` and ``words``; ``pairs``, a list of: ``pair`` (its name), ``nat`` (two
labels), ``could_be_direct``, ``runs``, a list of ``connected``, ``first_path``, ``path``,
``first_reply_s``, ``upgrade_s`` (null where it does not apply).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from dhtvpn.lab.matrix import DIRECT, Outcome

MEDIAN_LIMIT_S = 1.5
WORST_LIMIT_S = 4.0
"""From the second join to the first reply, over lines of 20 ms. Said, but no reason to fail: a busy machine
is slow too."""


@dataclass(frozen=True)
class Summary:
    """Every run of every pair, in the order of the runs."""

    outcomes: tuple[Outcome, ...]

    @property
    def by_pair(self) -> dict[str, list[Outcome]]:
        pairs: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            pairs.setdefault(outcome.pair.name, []).append(outcome)
        return pairs

    @property
    def complaints(self) -> list[tuple[str, str]]:
        """Pair and words."""
        return [(one.pair.name, one.complaint) for one in self.outcomes if one.complaint is not None]

    @property
    def ok(self) -> bool:
        """Every pair connected in every run, and directly where the behaviours leave room for it."""
        return not self.complaints

    @property
    def median_s(self) -> float | None:
        times = _times(self.outcomes)
        return median(times) if times else None

    @property
    def worst_s(self) -> float | None:
        return max(_times(self.outcomes), default=None)

    @property
    def within_limits(self) -> bool:
        """Both times, over the runs that connected."""
        median_s, worst_s = self.median_s, self.worst_s
        return (
            median_s is not None
            and worst_s is not None
            and median_s <= MEDIAN_LIMIT_S
            and worst_s <= WORST_LIMIT_S
        )


def to_json(summary: Summary, settings: dict[str, Any]) -> dict[str, Any]:
    """The object described in the module's docstring."""
    pairs = summary.by_pair
    return {
        "ok": summary.ok,
        "settings": settings,
        "summary": {
            "pairs": len(pairs),
            "connected": sum(all(one.connected for one in runs) for runs in pairs.values()),
            "direct": sum(all(one.path == DIRECT for one in runs) for runs in pairs.values()),
            "first_reply_s": {"median": _rounded(summary.median_s), "worst": _rounded(summary.worst_s)},
            "within_limits": summary.within_limits,
        },
        "complaints": [{"pair": pair, "words": words} for pair, words in summary.complaints],
        "pairs": [
            {
                "pair": name,
                "nat": [runs[0].first.nat_one, runs[0].first.nat_other],
                "could_be_direct": runs[0].could_be_direct,
                "runs": [_run_as_json(one) for one in runs],
            }
            for name, runs in pairs.items()
        ],
    }


def _run_as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "connected": outcome.connected,
        "first_path": outcome.first.path,
        "path": outcome.path,
        "first_reply_s": _rounded(outcome.first.first_reply_s),
        "upgrade_s": _rounded(outcome.upgrade_s),
    }


def to_table(summary: Summary) -> Table:
    """One row for each pair; fits 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("pair", no_wrap=True)
    table.add_column("NAT", no_wrap=True)
    table.add_column("path", min_width=len("relayed"))
    table.add_column("median s", justify="right", no_wrap=True)
    table.add_column("worst s", justify="right", no_wrap=True)
    for name, runs in summary.by_pair.items():
        times = _times(runs)
        table.add_row(
            name,
            f"{runs[0].first.nat_one} - {runs[0].first.nat_other}",
            _path_words(runs),
            _shown(median(times) if times else None),
            _shown(max(times, default=None)),
        )
    return table


def verdict(summary: Summary) -> list[str]:
    """Sentences under the table."""
    pairs = summary.by_pair
    connected = sum(all(one.connected for one in runs) for runs in pairs.values())
    lines = [f"{connected} of {len(pairs)} pairs connected in every run"]
    if summary.median_s is not None:
        within = "within" if summary.within_limits else "NOT within"
        lines.append(
            f"first reply: median {_shown(summary.median_s)} s, worst {_shown(summary.worst_s)} s, {within} "
            f"{MEDIAN_LIMIT_S:g} and {WORST_LIMIT_S:g} s"
        )
    lines += [f"{pair}: {words}" for pair, words in summary.complaints]
    return lines


def _path_words(runs: Sequence[Outcome]) -> str:
    """The paths that there were, the last one of each run; ``none`` where a run had no connection."""
    paths = [one.path or "unknown" if one.connected else "none" for one in runs]
    return ", ".join(dict.fromkeys(paths))


def _times(outcomes: Sequence[Outcome]) -> list[float]:
    return [
        one.first.first_reply_s for one in outcomes if one.connected and one.first.first_reply_s is not None
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
