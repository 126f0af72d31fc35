"""What must hold, and whether it does: the verdict of a run."""

from dataclasses import dataclass

from dhtvpn.lab.simulation.figures import Figures, LookupFigures

MEDIAN_LOOKUP_S = 1.0
"""At a median round trip of 80 ms, for the whole search, with nothing wrong."""

SUCCESS_PERCENT = 99.9
DEAD_PERCENT, DEAD_SUCCESS_PERCENT = 30.0, 99.5
HOSTILE_PERCENT, HOSTILE_SUCCESS_PERCENT = 20.0, 99.0
"""Up to this share of dead or hostile nodes this share of the lookups finds the record. Beyond, and for
both together, figures are printed without a limit."""

REST_OCTETS_PER_S = 60.0
"""Each way, headers included, all discovery of a member."""

GROWTH_TOLERANCE = 1.1
"""From the fewest to the most nodes datagrams may grow by this much more than log n does."""

KNOWN_PERCENT = 99.9
"""Of the checks at rest whether a member has another's record, through churn and changes of epoch."""


@dataclass(frozen=True)
class Verdict:
    """One limit."""

    name: str
    limit: str
    measured: str
    holds: bool


def verdicts(figures: Figures) -> list[Verdict]:
    """Every limit that ``figures`` say something about."""
    best = figures.by_size[-1]
    everything = [*figures.by_size, *figures.by_condition]
    found = [
        _at_least(f"found, {f.nodes} nodes{_what_is_wrong(f)}", f.success_percent, limit)
        for f in everything
        if (limit := _success_limit(f)) is not None
    ]
    return [
        _at_most(f"lookup p50, {best.nodes} nodes", best.whole_s["p50"], MEDIAN_LOOKUP_S, "s"),
        *found,
        _at_most("unverified records delivered", sum(f.forged for f in everything), 0, ""),
        _at_most("exceptions that escaped", sum(f.escaped for f in everything), 0, ""),
        *_growth(figures),
        *_rest(figures),
    ]


def _success_limit(figures: LookupFigures) -> float | None:
    dead, hostile = figures.dead_percent, figures.hostile_percent
    if not dead and not hostile:
        return SUCCESS_PERCENT
    if not hostile and dead <= DEAD_PERCENT:
        return DEAD_SUCCESS_PERCENT
    if not dead and hostile <= HOSTILE_PERCENT:
        return HOSTILE_SUCCESS_PERCENT
    return None


def _what_is_wrong(figures: LookupFigures) -> str:
    dead = f", {figures.dead_percent:g}% dead" if figures.dead_percent else ""
    hostile = f", {figures.hostile_percent:g}% hostile" if figures.hostile_percent else ""
    return dead + hostile


def _growth(figures: Figures) -> list[Verdict]:
    """Datagrams against log n, from the fewest nodes to the most."""
    if figures.growth is None:
        return []
    first, last = figures.by_size[0], figures.by_size[-1]
    logs = figures.growth.log_ratio(first.nodes, last.nodes)
    return [
        _at_most(
            f"datagrams per lookup, {last.nodes} against {first.nodes} nodes",
            last.datagrams / first.datagrams,
            logs * GROWTH_TOLERANCE,
            "times",
        )
    ]


def _rest(figures: Figures) -> list[Verdict]:
    found = []
    for f in figures.rest:
        if f.kind == "member":
            for way, octets in (("sent", f.sent), ("received", f.received)):
                name = f"member at rest, {way}, {f.nodes} nodes, {f.hours:g} h"
                found.append(_at_most(name, octets, REST_OCTETS_PER_S, "B/s"))
    if figures.watch is not None and figures.watch.expected:
        known = 100.0 * figures.watch.known / figures.watch.expected
        found.append(_at_least("members known to each other at rest", known, KNOWN_PERCENT))
    return found


def _at_most(name: str, value: float, limit: float, unit: str) -> Verdict:
    return Verdict(name, f"<= {limit:.4g} {unit}".rstrip(), f"{value:.4g} {unit}".rstrip(), value <= limit)


def _at_least(name: str, percent: float, limit: float) -> Verdict:
    return Verdict(name, f">= {limit:g} %", f"{percent:.2f} %", percent >= limit)
