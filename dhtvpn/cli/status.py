"""``dhtvpn status``: once, or live on the screen."""

import time
from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session
from dhtvpn.cli.throughput import Throughput
from dhtvpn.control.client import ControlClient

app = new_app()

REFRESH_S = 1.0


@app.command(
    epilog=examples(
        "dhtvpn status",
        "dhtvpn status --watch            live, with throughput, until Ctrl-C",
        "dhtvpn status --json | jq .peers",
        "dhtvpn status --watch --json     one object a second, each on a line",
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
            from dhtvpn.cli import views  # noqa: PLC0415 - rich takes 40 ms to load

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
    from rich.live import Live  # noqa: PLC0415 - as above

    from dhtvpn.cli.watch_view import WatchView  # noqa: PLC0415

    console, throughput = output.console(), Throughput()

    def look() -> WatchView:
        document = node.status()
        return WatchView(document, throughput.update(document, time.monotonic()))

    if not console.is_terminal:
        while True:
            console.print(look())
            time.sleep(REFRESH_S)
    live = Live(look(), console=console, auto_refresh=False, screen=True)
    try:  # not "with": a Ctrl-C while it starts would leave the terminal on the other screen
        live.start(refresh=True)
        while True:
            time.sleep(REFRESH_S)
            live.update(look(), refresh=True)
    finally:
        live.stop()
