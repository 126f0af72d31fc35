"""``dhtvpn lab matrix``: do every two kinds of access to the Internet connect, and how?"""

import re
from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.lab_lines import SeedOption
from dhtvpn.cli.lab_session import ending_on_signals, progress_lines
from dhtvpn.cli.options import JsonOption, examples, session
from dhtvpn.errors import UsageError

# What it needs is imported when it runs: `dhtvpn lab --help` shall not wait for it.
# ruff: noqa: PLC0415

EXAMPLES = examples(
    "sudo dhtvpn lab matrix                               all pairs, 20 ms lines",
    "sudo dhtvpn lab matrix --only symmetric              the pairs it is in",
    "sudo dhtvpn lab matrix --only port-symmetric --only same-lan --runs 5",
    "sudo dhtvpn lab matrix --links 0ms --json            for programs",
)

_MILLISECONDS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:ms)?")
MAX_LINK_MS = 2000.0


def matrix(
    context: typer.Context,
    *,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="This kind or pair. May be repeated."),
    ] = None,
    links: Annotated[
        str, typer.Option("--links", metavar="MS", help="Delay of each site's line, one way.")
    ] = "20ms",
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=1, max=100, help="How often each pair is built.")
    ] = 1,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Try every pair of NATs: who connects, by which path, how soon.

    The kinds: public, open (endpoint-independent filtering), address (restricted), port (restricted),
    symmetric, carrier (a carrier's NAT over a port-restricted one), ipv6 (without IPv4). And two
    members behind one NAT: same-lan, hairpin and no-hairpin (two homes behind a carrier's NAT that turns
    packets round, or does not). Each pair gets a laboratory of its own with one bootstrap node, which relays
    and has both IPv4 and IPv6. The time runs from the start of the second join to the first reply to ping.

    The exit code is 1 when a pair does not connect, or stays relayed although it could be direct.
    """
    from dhtvpn.lab import matrix as pairs
    from dhtvpn.lab import matrix_report
    from dhtvpn.lab.link_schedule import Conditions

    chosen = pairs.chosen(only or [])
    delay_ms = _milliseconds(links)
    lines = Conditions(delay_ms / 1000) if delay_ms else None
    with ending_on_signals():
        outcomes = pairs.run(chosen, lines, runs=runs, seed=seed, progress=progress_lines())
    summary = matrix_report.Summary(tuple(outcomes))
    if session(context, None, None, as_json).as_json:
        output.json_document(
            matrix_report.to_json(summary, {"links_ms": delay_ms, "runs": runs, "seed": seed})
        )
    else:
        output.show(matrix_report.to_table(summary))
        for line in matrix_report.verdict(summary):
            output.line(line)
    if not summary.ok:
        output.notice("dhtvpn: a pair did not connect, or not directly where it could")
        raise typer.Exit(1)


def _milliseconds(text: str) -> float:
    """``20``, ``20ms`` or ``2.5ms``. Raises UsageError."""
    match = _MILLISECONDS.fullmatch(text)
    if match is None or float(match[1]) > MAX_LINK_MS:
        raise UsageError(f"--links is a delay as 20ms, at most {MAX_LINK_MS:g}ms, not {text!r}")
    return float(match[1])
