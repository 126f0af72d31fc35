"""``dhtvpn lab simulate``: the directory on a simulated internet."""

from pathlib import Path
from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.lab_session import progress_lines
from dhtvpn.cli.options import JsonOption, examples, session

# What it needs is imported when it runs: `dhtvpn lab --help` shall not wait for it.
# ruff: noqa: PLC0415

EXAMPLES = examples(
    "dhtvpn lab simulate                                 1,000 nodes, minutes",
    "dhtvpn lab simulate --nodes 10000 --hours 24        over 15 minutes",
    "dhtvpn lab simulate --dead 30 --hostile 20          both at once",
    "dhtvpn lab simulate --nodes 100 --networks 100      what a node serves",
    "dhtvpn lab simulate --plot plots --json > all.json  pictures and figures",
)


def simulate(
    context: typer.Context,
    *,
    nodes: Annotated[
        int, typer.Option("--nodes", metavar="N", min=100, max=100_000, help="Nodes that store for others.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="The same seed, the same figures.")] = 1,
    dead: Annotated[
        float | None,
        typer.Option(
            "--dead",
            metavar="PCT",
            min=0,
            max=90,
            help="Measure with this share of dead nodes only.",
            show_default="10 to 50, one after the other",
        ),
    ] = None,
    hostile: Annotated[
        float | None,
        typer.Option(
            "--hostile",
            metavar="PCT",
            min=0,
            max=90,
            help="Measure with this share of hostile nodes only.",
            show_default="5 to 40, one after the other",
        ),
    ] = None,
    hours: Annotated[
        float, typer.Option("--hours", metavar="H", min=0, max=168, help="Simulated hours at rest; 0: none.")
    ] = 1.0,
    lookups: Annotated[
        int, typer.Option("--lookups", metavar="N", min=40, help="Lookups under each condition.")
    ] = 400,
    networks: Annotated[
        int,
        typer.Option(
            "--networks",
            metavar="N",
            min=0,
            max=10_000,
            help="Let so many networks of 8 rest over the nodes: what a node stores and serves.",
        ),
    ] = 0,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="DIR", help="Draw PNG and SVG files there; needs matplotlib."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the directory among thousands of simulated nodes.

    The nodes are the production code, in one process, in virtual time; no datagram leaves it. Needs no
    privileges. docs/simulation.md says how to read the figures.

    The exit code is 1 when a limit is missed.
    """
    from dhtvpn.lab.simulation import plots, report
    from dhtvpn.lab.simulation.limits import verdicts as judge
    from dhtvpn.lab.simulation.plan import Plan
    from dhtvpn.lab.simulation.plan import simulate as run

    if plot is not None:
        plots.check_available()
    progress = progress_lines()
    figures = run(Plan(nodes, seed, dead, hostile, hours, lookups, networks), progress)
    verdicts = judge(figures)
    if plot is not None:
        for path in plots.draw(figures, plot):
            progress(f"wrote {path}")
    if session(context, None, None, as_json).as_json:
        output.json_document(report.to_json(figures, verdicts))
    else:
        for table in report.tables(figures, verdicts):
            output.show(table)
            output.line("")
        output.lines(report.sentences(figures))
    missed = [verdict.name for verdict in verdicts if not verdict.holds]
    if missed:
        output.notice(f"dhtvpn: missed: {'; '.join(missed)}")
        raise typer.Exit(1)
