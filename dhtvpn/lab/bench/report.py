"""What a run of the bench came to: tables for people, Markdown for the documentation, JSON for programs.

``to_json``: ``date`` (UTC), ``machine`` (``processor``, ``cores``, ``memory_gb``, ``kernel``, ``python``),
``rounds``, ``quick``, ``cut`` (measurements that a quick run leaves out), ``left_out`` (tunnel: why),
``failures`` (sentences), ``figures`` (key: ``title``, ``unit``, ``more_is_better``, ``meaning``) and
``tunnels``: by name ``title`` and ``figures``, by key ``median``, ``low``, ``high``, ``each`` (one per round,
null where it failed), ``to_wireguard_go`` and ``to_none`` (ratios of medians, null where there is no such).
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from dhtvpn.lab.bench.figures import BY_KEY, Figure, Summary, ratio
from dhtvpn.lab.bench.known_tunnels import REFERENCE, WIRE
from dhtvpn.lab.bench.run import Results
from dhtvpn.lab.bench.schedule import MEASURES, Measure
from dhtvpn.lab.bench.tunnels import Tunnel

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Throughput", ("tcp_gbit_s", "tcp4_gbit_s", "both_gbit_s", "lossy_mbit_s", "udp_kpackets_s")),
    ("Round trip, ms", ("ping_p50_ms", "ping_p99_ms", "loaded_p50_ms", "loaded_p99_ms")),
    (
        "Cost",
        ("cpu_s_per_gb", "softirq_s_per_gb", "machine_s_per_gb", "memory_mb", "rss_mb", "idle_percent"),
    ),
)
"""The tables, each narrow enough for 80 columns."""

_TO_WIREGUARD, _TO_WIRE = (REFERENCE, "wireguard-go"), (WIRE, "no tunnel")
RATIOS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Throughput": (_TO_WIREGUARD, _TO_WIRE),
    "Round trip, ms": (_TO_WIREGUARD, _TO_WIRE),
    "Cost": (_TO_WIREGUARD,),
}
"""What each table is also given as ratios to: the wire costs nothing of its own."""

NOTHING = "-"


@dataclass(frozen=True)
class Machine:
    """What the figures were taken on."""

    processor: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    date: str

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gb:.0f} GB, Linux {self.kernel}, "
            f"Python {self.python}, {self.date}"
        )


@dataclass(frozen=True)
class Report:
    """One run."""

    tunnels: Sequence[Tunnel]
    left_out: Mapping[str, str]
    measures: Sequence[Measure]
    rounds: int
    quick: bool
    results: Results
    machine: Machine

    @property
    def figures(self) -> list[str]:
        """The keys of what was measured."""
        return [key for measure in self.measures for key in measure.figures]

    @property
    def cut(self) -> list[str]:
        """Measurements that this run did not take."""
        taken = {measure.name for measure in self.measures}
        return [measure.name for measure in MEASURES if measure.name not in taken]

    @property
    def measured(self) -> list[Tunnel]:
        return [tunnel for tunnel in self.tunnels if tunnel.name not in self.left_out]

    def summary(self, tunnel: str, key: str) -> Summary:
        return self.results.summary(tunnel, key)

    def ratio(self, tunnel: str, key: str, reference: str) -> float | None:
        """The ratio of two tunnels' medians."""
        return ratio(self.summary(tunnel, key).median, self.summary(reference, key).median)


def this_machine() -> Machine:
    """What we run on, and today's date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        processor_name(Path("/proc/cpuinfo").read_text()),
        os.cpu_count() or 1,
        memory / 2**30,
        platform.release(),
        platform.python_version(),
        time.strftime("%Y-%m-%d", time.gmtime()),
    )


def processor_name(cpuinfo: str) -> str:
    """The first ``model name`` of /proc/cpuinfo; the architecture where there is none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def to_json(report: Report) -> dict[str, Any]:
    """The object described in the module's docstring."""
    machine = {key: value for key, value in vars(report.machine).items() if key != "date"}
    return {
        "date": report.machine.date,
        "machine": machine,
        "rounds": report.rounds,
        "quick": report.quick,
        "cut": report.cut,
        "left_out": dict(report.left_out),
        "failures": list(report.results.failures),
        "figures": {key: _described(BY_KEY[key]) for key in report.figures},
        "tunnels": {
            tunnel.name: {
                "title": tunnel.title,
                "figures": {key: _figure_json(report, tunnel.name, key) for key in report.figures},
            }
            for tunnel in report.measured
        },
    }


def _described(figure: Figure) -> dict[str, Any]:
    return {
        "title": figure.title,
        "unit": figure.unit,
        "more_is_better": figure.more_is_better,
        "meaning": figure.meaning,
    }


def _figure_json(report: Report, tunnel: str, key: str) -> dict[str, Any]:
    summary = report.summary(tunnel, key)
    return {
        "median": _rounded(summary.median),
        "low": _rounded(summary.low),
        "high": _rounded(summary.high),
        "each": [_rounded(value) for value in summary.each],
        "to_wireguard_go": _rounded(report.ratio(tunnel, key, REFERENCE)),
        "to_none": _rounded(report.ratio(tunnel, key, WIRE)),
    }


def to_tables(report: Report) -> list[Table]:
    """For each group the medians with their spread, then the ratios."""
    tables = []
    for title, headings, rows in _grids(report):
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def to_markdown(report: Report) -> list[str]:
    """The same tables as docs/performance.md has them, with machine and date, line by line."""
    remarks = list(notes(report))
    lines = [remarks[0], ""]
    for title, headings, rows in _grids(report):
        lines += [f"**{title}**", "", f"| | {' | '.join(headings)} |", "|---" * (len(headings) + 1) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    return lines + remarks[1:]


def notes(report: Report) -> Iterator[str]:
    """What must be said beside the figures."""
    yield f"{report.machine}; {_rounds(report)}; medians, and half the range in percent of the median."
    if report.quick:
        yield "A quick run: every measurement is shorter."
    if report.cut:
        yield f"Not measured: {', '.join(report.cut)}."
    for name, reason in report.left_out.items():
        yield f"Left out: {name}: {reason}."
    for failure in report.results.failures:
        yield f"Failed: {failure}."


def _rounds(report: Report) -> str:
    return f"{report.rounds} rounds" if report.rounds > 1 else "one round"


def _grids(report: Report) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, headings and rows of every table."""
    for title, keys in GROUPS:
        taken = [key for key in keys if key in report.figures]
        if not taken:
            continue
        headings = [_heading(BY_KEY[key], title) for key in taken]
        yield title, headings, _rows(report, taken, None)
        for reference, name in RATIOS[title]:
            rows = _rows(report, taken, reference)
            if any(cell != NOTHING for row in rows for cell in row[1:]):
                yield f"{title.partition(',')[0]}: times {name}", [BY_KEY[key].title for key in taken], rows


def _heading(figure: Figure, title: str) -> str:
    named = figure.unit in title or figure.unit in figure.title
    return figure.title if named else f"{figure.title} {figure.unit}"


def _rows(report: Report, keys: Sequence[str], reference: str | None) -> list[list[str]]:
    rows = []
    for tunnel in report.measured:
        if reference is None:
            cells = [_cell(report.summary(tunnel.name, key), BY_KEY[key]) for key in keys]
        elif tunnel.name == reference:
            continue
        else:
            cells = [_ratio_cell(report.ratio(tunnel.name, key, reference)) for key in keys]
        rows.append([tunnel.title, *cells])
    return rows


def _cell(summary: Summary, figure: Figure) -> str:
    """The median, with its spread where there were several rounds, and how many rounds failed."""
    if summary.median is None:
        return "failed" if summary.failed else NOTHING
    cell = f"{summary.median:.{figure.digits}f}"
    if len(summary.good) > 1 and summary.spread is not None:
        cell += f" ±{100 * summary.spread:.0f}%"
    return f"{cell} ({summary.failed} failed)" if summary.failed else cell


def _ratio_cell(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _rounded(value: float | None) -> float | None:
    """Five significant digits: more would be noise."""
    return None if value is None else float(f"{value:.5g}")
