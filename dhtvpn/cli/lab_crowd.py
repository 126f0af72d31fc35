"""``dhtvpn lab crowd``: many members in one network."""

from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.lab_lines import SeedOption
from dhtvpn.cli.lab_session import ending_on_signals, progress_lines
from dhtvpn.cli.options import JsonOption, examples, session

# What it needs is imported when it runs: `dhtvpn lab --help` shall not wait for it.
# ruff: noqa: PLC0415

EXAMPLES = examples(
    "sudo dhtvpn lab crowd                     100 members, groups of five talk",
    "sudo dhtvpn lab crowd --members 20        a first impression",
    "sudo dhtvpn lab crowd --roster 8          no more paths than are needed",
    "sudo dhtvpn lab crowd --members 30 --group 30     everybody with everybody",
    "sudo dhtvpn lab crowd --json > crowd.json  for programs",
)


def crowd(
    context: typer.Context,
    *,
    members: Annotated[
        int, typer.Option("--members", metavar="N", min=2, max=400, help="About 65 MB of memory each.")
    ] = 100,
    group: Annotated[
        int, typer.Option("--group", metavar="N", min=2, max=400, help="How many talk with each other.")
    ] = 5,
    at_once: Annotated[
        int | None,
        typer.Option(
            "--at-once", metavar="N", min=1, max=64, help="Joins at a time.", show_default="one a processor"
        ),
    ] = None,
    roster: Annotated[
        int | None,
        typer.Option(
            "--roster",
            metavar="N",
            min=1,
            max=64,
            help="Above so many members, connect only to those talked to.",
            show_default="64",
        ),
    ] = None,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Let many members join one network, and report time and memory.

    Members live in homes of four, each behind a port-restricted NAT; there is one bootstrap node, which
    relays. They join a few at a time. Then everybody sends to everybody else of its group. The memory of a
    node is that of its control process and its engine.

    Everything is removed at the end, also after Ctrl-C. The exit code is 1 when a pair had no reply.
    """
    from dhtvpn.lab import crowd as crowds
    from dhtvpn.lab import crowd_report

    with ending_on_signals():
        joins = at_once or crowds.default_at_once()
        outcome = crowds.run(members, group, joins, seed, progress_lines(), roster=roster)
    if session(context, None, None, as_json).as_json:
        output.json_document(crowd_report.to_json(outcome))
    else:
        output.show(crowd_report.to_table(outcome))
        for line in crowd_report.verdict(outcome):
            output.line(line)
    if outcome.silent:
        output.notice("dhtvpn: a pair had no reply")
        raise typer.Exit(1)
