"""``dhtvpn events``: what has happened in a node, and what happens."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from dhtvpn.cli import output
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session

app = new_app()

SHOWN = 20
"""Events before the present that are shown unless another number is asked for."""


@app.command(
    epilog=examples(
        "dhtvpn events                         the last 20, then each as it happens",
        "dhtvpn events --no-follow --last 100",
        "dhtvpn events --json | jq 'select(.event == \"fallen-back\")'",
        "",
        "Ends with 3 when the node stops, and with Ctrl-C.",
    )
)
def events(
    context: typer.Context,
    *,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on as things happen, or end.")
    ] = True,
    last: Annotated[
        int, typer.Option("--last", "-n", metavar="N", min=0, help="Show so many from before.")
    ] = SHOWN,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow what happens: peers found and lost, paths, retries, drops. With --json one object a line."""
    chosen = session(context, state_dir, network, as_json)
    for event in node_for(chosen).events(last=last, follow=follow):
        if chosen.as_json:
            output.json_line(event)
        else:
            output.line(_line(event))


def _line(event: Mapping[str, Any]) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
    return f"{moment}  {event['event']:<16} {event['text']}"
