"""The ``dhtvpn`` command itself: the table of commands, the options before them, the way out."""

import importlib
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from dhtvpn import __version__
from dhtvpn.cli.exits import run_to_exit
from dhtvpn.cli.options import (
    GlobalOptions,
    JsonOption,
    NetworkOption,
    StateDirOption,
    examples,
    new_app,
)


@dataclass(frozen=True)
class LazyCommand:
    """A command whose module (its typer ``app``) is imported when the command is used."""

    module: str
    summary: str


COMMANDS: dict[str, LazyCommand] = {
    "create": LazyCommand("dhtvpn.cli.create", "Make a new network and print its network-id."),
    "join": LazyCommand("dhtvpn.cli.join", "Join a network and stay in it."),
    "status": LazyCommand("dhtvpn.cli.status", "Show this node, its NAT, the DHT and the peers."),
    "peers": LazyCommand("dhtvpn.cli.peers", "Show the other members and the path to each."),
    "list": LazyCommand("dhtvpn.cli.list_networks", "Show the networks that this machine knows."),
    "ping": LazyCommand("dhtvpn.cli.ping", "Measure the round trip to a peer through the tunnel."),
    "why": LazyCommand("dhtvpn.cli.why", "Explain the path to a peer, and what would make it direct."),
    "events": LazyCommand("dhtvpn.cli.events", "Follow what happens: paths, retries, drops."),
    "graph": LazyCommand("dhtvpn.cli.graph", "Draw who reaches whom, and how."),
    "wait": LazyCommand("dhtvpn.cli.wait", "Return when peers are connected."),
    "leave": LazyCommand("dhtvpn.cli.leave", "Stop the node of a network."),
    "netcheck": LazyCommand("dhtvpn.cli.netcheck", "Find out what this network lets a node do."),
    "bootstrap": LazyCommand("dhtvpn.cli.bootstrap", "Run a volunteer's node: no root, no tunnel."),
    "stock-peer": LazyCommand("dhtvpn.cli.stock_peer", "Attach a plain WireGuard client to this node."),
    "lab": LazyCommand("dhtvpn.cli.lab", "The NAT laboratory on this machine."),
}


class LazyGroup(TyperGroup):
    """A group that shows its help without importing a command, and ends by ``cli.exits``."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = get_command(importlib.import_module(entry.module).app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and leave the process with the contract's exit code."""
        # Not standalone: typer then raises what it would print in its own words, and cli.exits says it.
        options = {**extra, "prog_name": "dhtvpn", "standalone_mode": False}
        sys.exit(run_to_exit(lambda: super(LazyGroup, self).main(*args, **options)))


app = new_app(cls=LazyGroup, no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dhtvpn {__version__}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "dhtvpn create home             make a network; prints its network-id",
        "sudo dhtvpn join NETWORK_ID    join it; Ctrl-C leaves nothing behind",
        "dhtvpn status                  who is connected, and how",
        "",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such network, peer or",
        "running node, 4 timed out.",
    )
)
def dhtvpn(
    context: typer.Context,
    state_dir: StateDirOption = None,
    network: NetworkOption = None,
    as_json: JsonOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A private network of your own machines, with no server in the middle."""
    context.obj = GlobalOptions(state_dir, network, as_json)


def run() -> None:
    """The entry point of the ``dhtvpn`` command."""
    get_command(app)()
