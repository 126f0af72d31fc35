"""``dhtvpn ping``: round trips through the tunnel, answered by the other node itself."""

from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session
from dhtvpn.cli.views import milliseconds, path_of
from dhtvpn.control.schema import MAX_PING_COUNT
from dhtvpn.errors import TimedOutError

app = new_app()


@app.command(
    epilog=examples(
        "dhtvpn ping laptop",
        "dhtvpn ping 10.77.3.9 --count 10",
        "",
        "Ends with 4 when no reply came, with 3 when there is no such peer.",
    )
)
def ping(
    context: typer.Context,
    *,
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="A peer's name, the start of its id, or its address.")
    ],
    count: Annotated[
        int, typer.Option("--count", "-c", metavar="N", min=1, max=MAX_PING_COUNT, help="How many.")
    ] = 4,
    interval: Annotated[
        float, typer.Option("--interval", "-i", metavar="S", min=0.05, max=3600, help="Seconds between.")
    ] = 1.0,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the round trip to a peer through the tunnel, and show the path it takes."""
    chosen = session(context, state_dir, network, as_json)
    replied = 0
    for reply in node_for(chosen).ping(peer, count, interval):
        replied += reply["rtt_ms"] is not None
        if chosen.as_json:
            output.json_line(reply)
        elif reply["rtt_ms"] is None:
            output.line(f"{peer}: seq {reply['seq']}, no reply")
        else:
            output.line(f"{peer}: seq {reply['seq']}, {milliseconds(reply['rtt_ms'])}, {path_of(reply)}")
    if not replied:
        raise TimedOutError(f"no reply from {peer!r} to {count} ping{'s' if count > 1 else ''}")
