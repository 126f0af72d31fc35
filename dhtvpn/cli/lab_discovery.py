"""``dhtvpn lab discovery`` and ``dhtvpn lab lookups``: how fast members and records are found."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.lab_lines import SeedOption
from dhtvpn.cli.lab_session import ending_on_signals, progress_lines
from dhtvpn.cli.options import JsonOption, examples, session

if TYPE_CHECKING:
    from dhtvpn.lab.discovery.report import Figure
    from dhtvpn.lab.discovery.rounds import Progress, Round

# What they need is imported when they run: `dhtvpn lab --help` shall not wait for it.
# ruff: noqa: PLC0415

DISCOVERY_EXAMPLES = examples(
    "sudo dhtvpn lab discovery                            20 joins with watch, 20 without",
    "sudo dhtvpn lab discovery --rounds 3 --only watch    a first impression",
    "sudo dhtvpn lab discovery --round-trip 300           from the other side of the world",
    "sudo dhtvpn lab discovery --json > figures.json      for programs",
)
LOOKUPS_EXAMPLES = examples(
    "dhtvpn lab lookups                                   200 nodes, 30% killed",
    "dhtvpn lab lookups --nodes 50 --killed 50 --json",
)


def discovery(
    context: typer.Context,
    *,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="Joins that are timed.")] = 20,
    nodes: Annotated[
        int,
        typer.Option("--nodes", metavar="N", min=1, max=400, help="DHT nodes, each at a site of its own."),
    ] = 50,
    round_trip: Annotated[
        float, typer.Option("--round-trip", metavar="MS", min=0, max=4000, help="Between any two sites.")
    ] = 100.0,
    only: Annotated[
        str | None, typer.Option("--only", metavar="WHICH", help="watch or no-watch.", show_default="both")
    ] = None,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Time how long a joining member takes to be found.

    Two members behind port-restricted NATs, among DHT nodes in laboratory sites. Each round a new member
    joins; the time runs from before its process starts until the other member has its verified record:
    first with watch, then where that is switched off. The exit code is 1 when a limit is missed.
    """
    from dhtvpn.errors import UsageError
    from dhtvpn.lab.discovery import report

    if only not in (None, "watch", "no-watch"):
        raise UsageError(f"--only is watch or no-watch, not {only}")
    figures: list[Figure] = []
    measured = {}
    with ending_on_signals():
        for name, watch in (("watch", True), ("no-watch", False)):
            if only in (None, name):
                progress = progress_lines()
                progress(f"{name}: {rounds} rounds, {nodes} DHT nodes, {round_trip:g} ms round trip")
                results = _rounds(rounds, nodes, round_trip / 1000, seed, watch=watch, progress=progress)
                figures += report.of_rounds(results, watch=watch)
                measured[name] = report.rounds_as_json(results)
    settings = {"nodes": nodes, "round_trip_ms": round_trip, "rounds": rounds}
    if session(context, None, None, as_json).as_json:
        output.json_document(report.to_json(figures, {**settings, **measured}))
    else:
        output.show(report.to_table(f"{nodes} DHT nodes, {round_trip:g} ms round trip", figures))
    _fail_if_missed(figures)


def lookups(
    context: typer.Context,
    *,
    nodes: Annotated[
        int, typer.Option("--nodes", metavar="N", min=10, max=400, help="DHT nodes on loopback.")
    ] = 200,
    killed: Annotated[
        float, typer.Option("--killed", metavar="PERCENT", min=0, max=90, help="Of them, before lookups.")
    ] = 30.0,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, max=10_000, help="Records looked up and published.")
    ] = 100,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Time lookups and publications on loopback while a part of the DHT is dead.

    It needs no root. The exit code is 1 when a limit is missed.
    """
    from dhtvpn.lab.discovery import loopback, report

    outcome = asyncio.run(loopback.measure(nodes, killed / 100, count, seed, progress_lines()))
    figures = report.of_outcome(outcome)
    if session(context, None, None, as_json).as_json:
        output.json_document(report.to_json(figures, asdict(outcome)))
    else:
        output.show(report.to_table(f"{nodes} nodes on loopback, {outcome.killed} killed", figures))
    _fail_if_missed(figures)


def _rounds(
    count: int, nodes: int, round_trip_s: float, seed: int, *, watch: bool, progress: "Progress"
) -> "list[Round]":
    from dhtvpn.errors import DhtVpnError
    from dhtvpn.lab.discovery.rounds import Rounds, topology
    from dhtvpn.lab.experiment import explain
    from dhtvpn.lab.network import Network

    results: list[Round] = []
    with Network(topology(nodes, round_trip_s, seed)) as network:
        laboratory = Rounds(network, watch=watch, progress=progress)
        try:
            laboratory.start()
            for number in range(1, count + 1):
                results.append(laboratory.measure())
                seconds = results[-1].found_s
                progress(f"round {number}: {'not found' if seconds is None else f'{seconds:.2f} s'}")
        except DhtVpnError as error:
            raise DhtVpnError(explain(network, error)) from error
        if network.emulator is not None and (late := network.emulator.end().late):
            progress(f"{late} frames left a line more than 5 ms late: the machine was busy")
    return results


def _fail_if_missed(figures: "list[Figure]") -> None:
    missed = [figure.name for figure in figures if not figure.ok]
    if missed:
        output.notice(f"dhtvpn: limits missed: {'; '.join(missed)}")
        raise typer.Exit(1)
