"""The figures of a run as pictures, PNG and SVG. matplotlib is loaded only here, when plots are asked for."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dhtvpn.errors import SystemRefusedError, UsageError
from dhtvpn.lab.simulation.figures import Figures, LookupFigures
from dhtvpn.lab.simulation.limits import (
    DEAD_PERCENT,
    DEAD_SUCCESS_PERCENT,
    HOSTILE_PERCENT,
    HOSTILE_SUCCESS_PERCENT,
    MEDIAN_LOOKUP_S,
    REST_OCTETS_PER_S,
)

MISSING = "plots need matplotlib, which is not installed: pip install 'dhtvpn[plot]', or leave out --plot"
FORMATS = ("png", "svg")
INCHES = (11.0, 7.5)
LIMIT = {"color": "tab:red", "linestyle": "--", "linewidth": 1}


def check_available() -> None:
    """Raises UsageError when matplotlib is missing: to be called before an hour of simulation."""
    _pyplot()


def draw(figures: Figures, directory: Path) -> list[Path]:
    """Write every picture in every format; returns the files. Raises UsageError, SystemRefusedError."""
    pyplot = _pyplot()
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, picture in _pictures(pyplot, figures):
            picture.tight_layout()
            for form in FORMATS:
                path = directory / f"{name}.{form}"
                # Without a date the same run gives the same bytes.
                picture.savefig(path, metadata={"Date": None} if form == "svg" else None, dpi=110)
                written.append(path)
            pyplot.close(picture)
    except OSError as error:
        raise SystemRefusedError(f"cannot write plots to {directory}: {error.strerror}") from error
    return written


def _pyplot() -> Any:
    try:
        importlib.import_module("matplotlib").use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise UsageError(MISSING) from None
    pyplot.rcParams["svg.hashsalt"] = "dhtvpn"
    return pyplot


def _pictures(pyplot: Any, figures: Figures) -> Iterator[tuple[str, Any]]:
    yield "lookups-by-size", _by_size(pyplot, figures)
    sound = figures.by_size[-1]
    dead = [f for f in figures.by_condition if f.dead_percent and not f.hostile_percent]
    hostile = [f for f in figures.by_condition if f.hostile_percent and not f.dead_percent]
    if dead:
        points = [(f.dead_percent, f) for f in (sound, *dead)]
        limit = (DEAD_PERCENT, DEAD_SUCCESS_PERCENT)
        yield "lookups-dead", _by_share(pyplot, f"dead nodes of {sound.nodes}, %", points, limit)
    if hostile:
        points = [(f.hostile_percent, f) for f in (sound, *hostile)]
        limit = (HOSTILE_PERCENT, HOSTILE_SUCCESS_PERCENT)
        yield "lookups-hostile", _by_share(pyplot, f"hostile nodes of {sound.nodes}, %", points, limit)
    if figures.rest:
        yield "rest", _rest(pyplot, figures)


def _by_size(pyplot: Any, figures: Figures) -> Any:
    picture, ((cost, rounds), (seconds, found)) = pyplot.subplots(2, 2, figsize=INCHES)
    sizes = [f.nodes for f in figures.by_size]
    cost.plot(sizes, [f.datagrams for f in figures.by_size], "o-", label="measured")
    if figures.growth is not None:
        fitted = [figures.growth.datagrams(n) for n in sizes]
        label = f"{figures.growth.intercept:.1f} + {figures.growth.slope:.2f} log2 n"
        cost.plot(sizes, fitted, "k:", label=f"{label} (R2 {figures.growth.r_squared:.2f})")
    rounds.plot(sizes, [f.rounds for f in figures.by_size], "o-", label="rounds (mean)")
    _seconds(seconds, sizes, figures.by_size)
    seconds.axhline(MEDIAN_LOOKUP_S, **LIMIT)
    found.plot(sizes, [f.success_percent for f in figures.by_size], "o-", label="found, %")
    found.set_ylim(95.0, 100.2)
    titles = (
        "datagrams per lookup",
        "rounds per lookup",
        "seconds per lookup",
        "lookups that found the record",
    )
    for axes, title in zip((cost, rounds, seconds, found), titles, strict=True):
        axes.set_xscale("log")
        _finish(axes, title, "nodes")
    return picture


def _by_share(
    pyplot: Any, label: str, points: list[tuple[float, LookupFigures]], limit: tuple[float, float]
) -> Any:
    picture, ((found, seconds), (cost, rounds)) = pyplot.subplots(2, 2, figsize=INCHES)
    shares, rows = [share for share, _ in points], [f for _, f in points]
    found.plot(shares, [f.success_percent for f in rows], "o-", label="found, %")
    found.plot([0.0, limit[0]], [limit[1], limit[1]], label=f"limit up to {limit[0]:g}%", **LIMIT)
    _seconds(seconds, shares, rows)
    cost.plot(shares, [f.datagrams for f in rows], "o-", label="datagrams")
    octets = cost.twinx()
    octets.plot(shares, [f.octets_sent for f in rows], "s:", color="tab:green", label="octets sent")
    octets.plot(shares, [f.octets_received for f in rows], "s:", color="tab:purple", label="octets received")
    octets.legend(loc="lower right")
    rounds.plot(shares, [f.rounds for f in rows], "o-", label="rounds (mean)")
    titles = ("lookups that found the record", "seconds per lookup", "cost per lookup", "rounds per lookup")
    for axes, title in zip((found, seconds, cost, rounds), titles, strict=True):
        _finish(axes, title, label)
    return picture


def _seconds(axes: Any, xs: list[int] | list[float], rows: list[LookupFigures]) -> None:
    for quantile, style in (("p50", "o-"), ("p95", "^--"), ("p99", "v:")):
        axes.plot(xs, [f.whole_s[quantile] for f in rows], style, label=f"whole search, {quantile}")
    axes.plot(xs, [f.first_s["p50"] for f in rows], "s-", label="newest record there, p50")


def _rest(pyplot: Any, figures: Figures) -> Any:
    picture, axes = pyplot.subplots(figsize=INCHES)
    places = range(len(figures.rest))
    names = [f"{f.kind}\n{f.nodes} nodes, {f.members} members\n{f.hours:g} h" for f in figures.rest]
    axes.bar([p - 0.2 for p in places], [f.sent for f in figures.rest], 0.4, label="sent")
    axes.bar([p + 0.2 for p in places], [f.received for f in figures.rest], 0.4, label="received")
    axes.axhline(REST_OCTETS_PER_S, label="limit for a member", **LIMIT)
    axes.set_xticks(list(places), names)
    _finish(axes, "octets per second at rest, headers included", "")
    return picture


def _finish(axes: Any, title: str, label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.grid(True, alpha=0.3)
    axes.legend()
