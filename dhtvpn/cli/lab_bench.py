"""``dhtvpn lab bench``: measure dhtvpn against the other tunnels that this machine has."""

from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.lab_session import ending_on_signals, progress_lines
from dhtvpn.cli.options import JsonOption, examples, session
from dhtvpn.errors import UsageError

# What it needs is imported when it runs: `dhtvpn lab --help` shall not wait for it.
# ruff: noqa: PLC0415

FULL_ROUNDS, QUICK_ROUNDS = 5, 1

EXAMPLES = examples(
    "sudo dhtvpn lab bench --quick                      under two minutes",
    "sudo dhtvpn lab bench                              five rounds of all",
    "sudo dhtvpn lab bench --only none --only tinc      these tunnels only",
    "sudo dhtvpn lab bench --measure tcp --rounds 9     this measurement only",
    "sudo dhtvpn lab bench --json > figures.json        for programs",
    "",
    "A tunnel of your own: DHTVPN_BENCH_TUNNELS names a JSON file such as",
    '  {"mine": {"up": "/root/up.sh", "down": "/root/down.sh"}}',
    "The commands find what to join in the variables BENCH_LEFT_NAMESPACE,",
    "BENCH_LEFT_UNDERLAY, BENCH_LEFT_OVERLAY, the same with RIGHT, and others:",
    "see docs/performance.md.",
)


def bench(
    context: typer.Context,
    *,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This tunnel. May be repeated.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option("--measure", metavar="NAME", help="This measurement. May be repeated."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            metavar="N",
            min=1,
            max=100,
            help="How often each is measured.",
            show_default=f"{FULL_ROUNDS}, {QUICK_ROUNDS} with --quick",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short: one round, fewer and shorter measurements.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables as Markdown, for docs/performance.md.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure dhtvpn and the other tunnels found here.

    Each tunnel gets two network namespaces of its own, which are removed at the end, also after Ctrl-C.
    Tunnels: none (the wire), dhtvpn-aes, dhtvpn-chacha, dhtvpn-stock, wireguard-go, tinc, n2n, nebula,
    fastd. Those not installed are left out. Measurements: tcp, tcp4, both, udp, ping, loaded, lossy,
    memory, idle. Nothing else should run on the machine meanwhile.

    The exit code is 1 when a tunnel did not come up or a measurement failed.
    """
    from dhtvpn.lab.bench import known_tunnels, report, schedule
    from dhtvpn.lab.bench.measurements import FULL, QUICK
    from dhtvpn.lab.bench.run import Bench
    from dhtvpn.lab.bench.run import measure as measure_all

    if markdown and as_json:
        raise UsageError("--json and --markdown are two ways to print: choose one")
    count = rounds or (QUICK_ROUNDS if quick else FULL_ROUNDS)
    measures = schedule.chosen(measure or [], quick)
    choice = known_tunnels.choose(only or [])
    progress = progress_lines()
    for name, reason in choice.left_out.items():
        progress(f"{name} is left out: {reason}")
    with ending_on_signals(), Bench(choice.tunnels, progress) as laboratory:
        results = measure_all(laboratory.running, count, measures, QUICK if quick else FULL, progress)
        not_up = dict(laboratory.not_up)
    outcome = report.Report(
        choice.tunnels, {**choice.left_out, **not_up}, measures, count, quick, results, report.this_machine()
    )
    if session(context, None, None, as_json).as_json:
        output.json_document(report.to_json(outcome))
    elif markdown:
        output.lines(report.to_markdown(outcome))
    else:
        for table in report.to_tables(outcome):
            output.show(table)
            output.line("")
        output.lines(report.notes(outcome))
    if not_up or results.failures:
        output.notice("dhtvpn: not everything could be measured")
        raise typer.Exit(1)
