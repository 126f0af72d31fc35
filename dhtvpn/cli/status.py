"""``dhtvpn status``: once, or kept on the screen."""

import time
from typing import Annotated

import typer
from rich.live import Live

from dhtvpn.cli import output, views
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session
from dhtvpn.control.client import ControlClient

app = new_app()

REFRESH_S = 1.0


@app.command(
    epilog=examples(
        "dhtvpn status",
        "dhtvpn status --watch            until Ctrl-C",
        "dhtvpn status --json | jq .peers",
    )
)
def status(
    context: typer.Context,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Keep it on the screen until Ctrl-C.")] = False,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show this node, its NAT, the DHT and the peers."""
    chosen = session(context, state_dir, network, as_json)
    node = node_for(chosen)
    if not watch:
        document = node.status()
        if chosen.as_json:
            output.json_document(document)
        else:
            output.show(views.status(document))
    elif chosen.as_json:
        _watch_lines(node)
    else:
        _watch_screen(node)


def _watch_lines(node: ControlClient) -> None:
    """One JSON document per line, for a program."""
    while True:
        output.json_line(node.status())
        time.sleep(REFRESH_S)


def _watch_screen(node: ControlClient) -> None:
    """In place on a terminal; one view after the other where there is none."""
    console = output.console()
    if not console.is_terminal:
        while True:
            console.print(views.status(node.status()))
            time.sleep(REFRESH_S)
    with Live(views.status(node.status()), console=console, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(views.status(node.status()), refresh=True)
