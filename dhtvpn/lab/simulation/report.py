"""The figures of a run as tables for a person and as an object for a program. Pure."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from dhtvpn.lab.simulation.figures import Figures, LookupFigures
from dhtvpn.lab.simulation.limits import Verdict

DAY_S = 86_400

NOTES = (
    "p50, p95: seconds from the call until the search ends; first: until the newest envelope of the record "
    "was there, p50; publish: until all storing nodes have answered, p50.",
    "found: the newest envelope was delivered, last of its slot. Messages: datagrams sent and "
    "received by the node that looks.",
    "Octets with IPv4 and UDP headers. Routing tables were filled through the table's own rules, not by "
    "weeks of joining; all else is production code over simulated datagrams.",
    "At rest, 'storing' among many nodes: measured at nodes that alone have upkeep, and doubled, for every "
    "node is asked as often as it asks. The smaller network at rest has upkeep and churn everywhere.",
    "MB: envelopes, floors and subscriptions, each counted at the most that it costs in memory; the process "
    "itself comes on top. most: of all nodes at any time.",
)


def to_json(figures: Figures, verdicts: list[Verdict]) -> dict[str, Any]:
    """Field names as in ``figures``; ``ok`` is false when a limit is missed."""
    return {
        "ok": all(verdict.holds for verdict in verdicts),
        "limits": [asdict(verdict) for verdict in verdicts],
        **asdict(figures),
    }


def tables(figures: Figures, verdicts: list[Verdict]) -> list[Table]:
    """In the order in which they are read."""
    found = [_lookups("lookups by number of nodes", figures.by_size)]
    if figures.by_condition:
        found.append(_lookups("lookups with dead and hostile nodes", figures.by_condition))
    if figures.rest:
        found += [_rest(figures), _held(figures)]
    return [*found, _limits(verdicts)]


def sentences(figures: Figures) -> list[str]:
    """What fits no table."""
    rtt = ", ".join(f"p{p} {seconds * 1e3:.0f}" for p, seconds in figures.rtt_s.items())
    said = [f"seed {figures.seed}; round trip between sites in ms: {rtt}; loss {figures.loss:.0%} each way"]
    if figures.growth is not None:
        g = figures.growth
        said.append(
            f"datagrams per lookup = {g.intercept:.1f} + {g.slope:.2f} log2 n (R2 {g.r_squared:.2f}); "
            f"as a power of n: n^{g.exponent:.2f}"
        )
    if (w := figures.watch) is not None:
        seen = f"p50 {w.seen_s['p50']:.2f} s, p95 {w.seen_s['p95']:.2f} s"
        said.append(
            f"with churn: {w.known} of {w.expected} times a member had another's record; {w.seen} of "
            f"{w.joins} times it had a newcomer's, after {seen}"
        )
    return [*said, *NOTES]


def _lookups(title: str, rows: Iterable[LookupFigures]) -> Table:
    columns = ("nodes", "dead", "hostile", "found", "p50", "p95", "first", "publish", "rounds")
    table = _table(title, *columns, "messages", "octets")
    for f in rows:
        table.add_row(
            str(f.nodes),
            f"{f.dead_percent:g}%",
            f"{f.hostile_percent:g}%",
            f"{f.success_percent:.2f}%",
            f"{f.whole_s['p50']:.2f}",
            f"{f.whole_s['p95']:.2f}",
            f"{f.first_s['p50']:.2f}",
            f"{f.publish_s['p50']:.2f}",
            f"{f.rounds:.2f}",
            f"{f.datagrams:.1f}",
            f"{f.octets_sent + f.octets_received:.0f}",
        )
    return table


def _rest(figures: Figures) -> Table:
    columns = ("node", "nodes", "members", "hours", "mean of", "sent", "received", "most", "datagrams")
    table = _table("at rest, octets and datagrams per second of one node", *columns)
    for f in figures.rest:
        table.add_row(
            f.kind,
            str(f.nodes),
            str(f.members),
            f"{f.hours:g}",
            str(f.measured),
            f"{f.sent:.1f}",
            f"{f.received:.1f}",
            f"{f.worst_sent:.0f}/{f.worst_received:.0f}",
            f"{f.datagrams_per_s:.2f}",
        )
    return table


def _held(figures: Figures) -> Table:
    columns = ("nodes", "members", "envelopes", "floors", "subscriptions", "MB", "most", "MB/day out", "in")
    table = _table("what one storing node holds for others, and its day", *columns)
    for f in figures.rest:
        if f.held is not None:
            table.add_row(
                str(f.nodes),
                str(f.members),
                f"{f.held.envelopes:.1f}",
                f"{f.held.floors:.1f}",
                f"{f.held.subscriptions:.1f}",
                f"{f.held.octets / 1e6:.2f}",
                f"{f.held.worst_octets / 1e6:.2f}",
                f"{f.sent * DAY_S / 1e6:.1f}",
                f"{f.received * DAY_S / 1e6:.1f}",
            )
    return table


def _limits(verdicts: list[Verdict]) -> Table:
    table = Table(title="limits", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("what", "limit", "measured", ""):
        table.add_column(column)
    for verdict in verdicts:
        table.add_row(verdict.name, verdict.limit, verdict.measured, "holds" if verdict.holds else "MISSED")
    return table


def _table(title: str, *columns: str) -> Table:
    """Eighty columns of a terminal are enough for it."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in columns:
        table.add_column(column, justify="right")
    return table
