"""``dhtvpn lab``: build the NAT laboratory, run members in it, list and remove what is left."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from dhtvpn.cli import lab_bench, lab_crowd, lab_discovery, lab_matrix, lab_simulate, output
from dhtvpn.cli.lab_lines import (
    DelayOption,
    JitterOption,
    LossOption,
    ReorderingOption,
    SeedOption,
    with_lines,
)
from dhtvpn.cli.lab_session import ending_on_signals, progress_lines
from dhtvpn.cli.options import JsonOption, examples, new_app, session

if TYPE_CHECKING:
    from dhtvpn.lab.experiment import Limits, PairResult, Progress
    from dhtvpn.lab.network import Network
    from dhtvpn.lab.topology import Topology

# What these commands need is imported when they run: `dhtvpn --help` shall not wait for it.
# ruff: noqa: PLC0415

app = new_app(no_args_is_help=True)
app.command("bench", epilog=lab_bench.EXAMPLES)(lab_bench.bench)
app.command("crowd", epilog=lab_crowd.EXAMPLES)(lab_crowd.crowd)
app.command("discovery", epilog=lab_discovery.DISCOVERY_EXAMPLES)(lab_discovery.discovery)
app.command("lookups", epilog=lab_discovery.LOOKUPS_EXAMPLES)(lab_discovery.lookups)
app.command("matrix", epilog=lab_matrix.EXAMPLES)(lab_matrix.matrix)
app.command("simulate", epilog=lab_simulate.EXAMPLES)(lab_simulate.simulate)


@app.callback(
    epilog=examples(
        "dhtvpn lab list                  which topologies there are",
        "sudo dhtvpn lab run demo         build one, and measure every pair",
        "sudo dhtvpn lab matrix           every pair of NATs: who connects, how soon",
        "sudo dhtvpn lab bench --quick    dhtvpn against other tunnels",
        "sudo dhtvpn lab crowd            a hundred members: time and memory",
        "sudo dhtvpn lab discovery        how fast a joining member is found",
        "dhtvpn lab simulate              thousands of simulated DHT nodes",
    )
)
def lab() -> None:
    """The NAT laboratory: routers, NATs and nodes in network namespaces of this machine.

    It needs root (except for simulate and list), but no Internet, and leaves this machine's own network
    alone.
    """


@app.command(
    epilog=examples(
        "sudo dhtvpn lab run                    the demo: two NATs, a public server",
        "sudo dhtvpn lab run pair --runs 10     median and worst of ten",
        "sudo dhtvpn lab run demo --keep        leave it up and look around",
        "sudo dhtvpn lab run pair --delay 25    100 ms there and back between any two sites",
        "sudo dhtvpn lab run pair --delay 10 --jitter 3 --loss 0.5 --reordering 1 --seed 7",
    )
)
def run(
    context: typer.Context,
    topology: Annotated[str, typer.Argument(help="Which one: see 'dhtvpn lab list'.")] = "demo",
    *,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=1, help="Build and measure it this many times.")
    ] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the last run up.")] = False,
    seconds: Annotated[
        int,
        typer.Option("--seconds", metavar="N", min=0, max=600, help="Length of each TCP stream; 0: none."),
    ] = 3,
    delay: DelayOption = 0.0,
    jitter: JitterOption = 0.0,
    loss: LossOption = 0.0,
    reordering: ReorderingOption = 0.0,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Build a topology, let its members join, measure each pair.

    With --delay, --jitter, --loss or --reordering an emulator carries the frames of every line between a
    site and the Internet. The same --seed gives the same chance; each further run takes the next seed.

    Everything happens in network namespaces, which are removed at the end, also after Ctrl-C. The exit
    code is 1 when a pair that has a direct path did not connect.
    """
    from dhtvpn.lab import report
    from dhtvpn.lab.experiment import Limits
    from dhtvpn.lab.namespaces import check_requirements
    from dhtvpn.lab.topologies import named

    chosen = with_lines(
        named(topology), delay_ms=delay, jitter_ms=jitter, loss=loss, reordering=reordering, seed=seed
    )
    check_requirements(("ip", "nft", "sysctl", "ping", *(["iperf3"] if seconds else [])))
    progress = progress_lines()
    results = []
    with ending_on_signals():
        for number in range(1, runs + 1):
            if runs > 1:
                progress(f"run {number} of {runs}")
            results.append(
                _one_run(
                    replace(chosen, seed=seed + number - 1),
                    Limits(throughput_s=seconds),
                    progress,
                    keep=keep and number == runs,
                )
            )
    summary = report.summarise(chosen, results)
    if session(context, None, None, as_json).as_json:
        output.json_document(report.to_json(summary))
    else:
        output.show(report.to_table(summary))
        for line in report.legend(summary).splitlines():
            output.line(line)
    if not summary.ok:
        output.notice("dhtvpn: a pair that has a direct path did not connect")
        raise typer.Exit(1)


@app.command("list", epilog=examples("dhtvpn lab list", "dhtvpn lab list --json"))
def list_laboratories(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the topologies, and the laboratories that are up."""
    from dhtvpn.lab import register
    from dhtvpn.lab.topologies import TOPOLOGIES

    entries = register.entries()
    if session(context, None, None, as_json).as_json:
        output.json_document(
            {
                "topologies": {name: topology.summary for name, topology in TOPOLOGIES.items()},
                "laboratories": [
                    {"tag": entry.tag, "topology": entry.topology, "state": entry.state} for entry in entries
                ],
            }
        )
        return
    for name, topology in TOPOLOGIES.items():
        output.line(f"{name:16}{topology.summary}")
    for entry in entries:
        output.line(f"on this machine: {entry.prefix}* ({entry.topology or 'damaged entry'}), {entry.state}")


@app.command(
    epilog=examples(
        "sudo dhtvpn lab clean            what --keep or a killed run has left",
        "sudo dhtvpn lab clean --all      those that are running too",
    )
)
def clean(
    context: typer.Context,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also laboratories that a running command is using.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove laboratories with their processes and files."""
    from dhtvpn.lab import clean as cleaning
    from dhtvpn.lab.namespaces import check_requirements

    check_requirements(("ip",))
    removed = []
    for entry in cleaning.removable(everything):
        cleaning.remove_laboratory(entry)
        removed.append(entry.tag)
    orphans = cleaning.orphaned_namespaces()
    cleaning.remove_orphans(orphans)
    if session(context, None, None, as_json).as_json:
        output.json_document({"removed": removed, "namespaces": orphans})
        return
    for name in (*(f"dvl-{tag}-*" for tag in removed), *orphans):
        output.line(f"removed {name}")
    if not removed and not orphans:
        output.line("nothing to remove")


def _one_run(
    topology: "Topology", limits: "Limits", progress: "Progress", *, keep: bool
) -> "list[PairResult]":
    from dhtvpn.errors import DhtVpnError
    from dhtvpn.lab.experiment import Experiment, explain
    from dhtvpn.lab.network import Network

    with Network(topology) as network:
        progress(
            f"{topology.name} is up: {len(network.machines)} machines in namespaces {network.entry.prefix}*"
        )
        try:
            results = Experiment(network, limits, progress).run()
        except DhtVpnError as error:
            raise DhtVpnError(explain(network, error)) from error
        if keep:
            network.keep()
            _show_how_to_enter(network)
        return results


def _show_how_to_enter(network: "Network") -> None:
    output.notice("The laboratory stays up. A shell inside, and dhtvpn there:")
    for machine in network.machines:
        output.notice(f"  sudo {' '.join(machine.enter)} bash")
    for member in network.topology.members:
        machine = network.node(member.name)
        output.notice(f"  sudo {' '.join([*machine.enter, *machine.dhtvpn('status')])}")
    output.notice("Remove it: sudo dhtvpn lab clean")
