"""The figures of the discovery measurements against the limits that they must keep. Pure.

``to_json``: a list of ``figures`` with ``name``, ``unit``, ``value``, ``limit``, ``ok``; and what else was
measured, by the field names of ``rounds.Round`` and ``loopback.Outcome``.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.table import Table

from dhtvpn.lab.discovery.loopback import Outcome
from dhtvpn.lab.discovery.rounds import Round

MEDIAN_S, WORST_S = 1.0, 2.5
"""From a second member's ``join`` to the first member having its record, where it watches."""

WORST_WITHOUT_WATCH_S = 4.0

LOOKUP_P95_S, PUBLICATION_P95_S = 0.5, 1.0
"""Among nodes on loopback of which 30% were killed. A lookup is judged by when the verified record was there,
which is what somebody waits for; the whole lookup, until the closest live nodes were heard, has no limit."""

PHASES = {
    "code_loaded": "process started, code loaded",
    "node_up": "interface, engine, local API up",
    "dht_reached": "first answer from the DHT",
    "public_endpoint": "public endpoint known",
    "published": "record stored, confirmed",
}


@dataclass(frozen=True)
class Figure:
    """One measured value; it is ``ok`` at or below ``limit`` (share of found lookups: at or above)."""

    name: str
    value: float
    limit: float | None = None
    at_least: bool = False
    unit: str = "s"

    @property
    def ok(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def of_rounds(rounds: Sequence[Round], *, watch: bool) -> list[Figure]:
    """A join that was not found in time counts as infinitely long."""
    found = [math.inf if one.found_s is None else one.found_s for one in rounds]
    bare = [s for one in rounds if (s := one.found_without_python_s) is not None]
    connected = [math.inf if one.connected_s is None else one.connected_s for one in rounds]
    kind = "watch" if watch else "no watch"
    figures = [
        Figure(f"{kind}: found, median", median(found), MEDIAN_S if watch else None),
        Figure(
            f"{kind}: found, worst of {len(found)}", max(found), WORST_S if watch else WORST_WITHOUT_WATCH_S
        ),
        Figure(f"{kind}: found, median, after the code was loaded", median(bare or [math.inf])),
        Figure(f"{kind}: tunnel up at the first member, median", median(connected)),
    ]
    for phase, text in PHASES.items():
        reached = [one.phases[phase] for one in rounds if phase in one.phases]
        if reached:
            figures.append(Figure(f"{kind}: {text}, median", median(reached)))
    return figures


def of_outcome(outcome: Outcome) -> list[Figure]:
    """A lookup that found nothing counts as infinitely long. "record there" is the first moment at which the
    verified record was there; "whole lookup" goes on until the closest live nodes were heard."""
    found = [math.inf if seconds is None else seconds for seconds in outcome.lookups_s]
    return [
        Figure("lookups that found the record", 100 * outcome.found, 100.0, at_least=True, unit="%"),
        Figure("lookup, record there, median", median(found)),
        Figure("lookup, record there, p95", percentile(found, 95), LOOKUP_P95_S),
        Figure("whole lookup, closest nodes heard, median", median(outcome.complete_s)),
        Figure("whole lookup, closest nodes heard, p95", percentile(outcome.complete_s, 95)),
        Figure("publication, median", median(outcome.publications_s)),
        Figure("publication, p95", percentile(outcome.publications_s, 95), PUBLICATION_P95_S),
        Figure("stores confirmed, fewest", float(min(outcome.stores)), unit=""),
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def to_table(title: str, figures: Sequence[Figure]) -> Table:
    """One row for each figure."""
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("limit", justify="right")
    for figure in figures:
        limit = "" if figure.limit is None else f"{figure.limit:g}{' at least' if figure.at_least else ''}"
        table.add_row(
            figure.name, f"{figure.value:.2f} {figure.unit}", f"{limit}{'' if figure.ok else '  MISSED'}"
        )
    return table


def to_json(figures: Sequence[Figure], measured: dict[str, Any]) -> dict[str, Any]:
    """See the module; what never happened is null."""
    return {
        "ok": all(figure.ok for figure in figures),
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "value": figure.value if math.isfinite(figure.value) else None,
                "limit": figure.limit,
                "ok": figure.ok,
            }
            for figure in figures
        ],
        **measured,
    }


def rounds_as_json(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    return [asdict(one) for one in rounds]
