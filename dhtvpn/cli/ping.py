"""``dhtvpn ping``: round trips through the tunnel, answered by the other node itself, and by which path."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from dhtvpn.cli import output
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session
from dhtvpn.cli.views import duration, milliseconds, path_of
from dhtvpn.control.schema import MAX_PING_COUNT
from dhtvpn.errors import TimedOutError

app = new_app()

COUNT = 4
COUNT_UNTIL_DIRECT = 30
"""A direct path usually takes some seconds, where there is one."""


@app.command(
    epilog=examples(
        "dhtvpn ping laptop",
        "dhtvpn ping 10.77.3.9 --count 10",
        "dhtvpn ping laptop --until-direct     until no relay is in between",
        "",
        "Ends with 4 when no reply came, or none directly with --until-direct; with 3",
        "when there is no such peer.",
    )
)
def ping(
    context: typer.Context,
    *,
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="A peer's name, the start of its id, or its address.")
    ],
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            "-c",
            metavar="N",
            min=1,
            max=MAX_PING_COUNT,
            help=f"How many at most [default: {COUNT}; with --until-direct {COUNT_UNTIL_DIRECT}].",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", "-i", metavar="S", min=0.05, max=3600, help="Seconds between.")
    ] = 1.0,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", "-w", metavar="S", min=0, max=86400, help="End after so many seconds."),
    ] = None,
    until_direct: Annotated[
        bool, typer.Option("--until-direct", help="Have both sides try, and end with the first direct reply.")
    ] = False,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the round trip to a peer through the tunnel, and show the path of every reply."""
    chosen = session(context, state_dir, network, as_json)
    wanted = count or (COUNT_UNTIL_DIRECT if until_direct else COUNT)
    deadline = None if timeout is None else time.monotonic() + timeout
    sent = replied = 0
    direct = False
    for reply in node_for(chosen).ping(peer, wanted, interval, until_direct=until_direct):
        sent += 1
        answered = reply["rtt_ms"] is not None
        replied += answered
        direct = answered and reply["path"] == "direct"
        if chosen.as_json:
            output.json_line(reply)
        else:
            output.lines(_lines(peer, reply))
        if deadline is not None and time.monotonic() >= deadline:
            break
    pings = f"{sent} ping{'' if sent == 1 else 's'}"
    if not replied:
        raise TimedOutError(f"no reply from {peer!r} to {pings}: 'dhtvpn why {peer}' says more")
    if until_direct and not direct:
        raise TimedOutError(
            f"no direct path to {peer!r} within {pings}: 'dhtvpn why {peer}' says what would make it direct"
        )


def _lines(peer: str, reply: Mapping[str, Any]) -> list[str]:
    if reply["rtt_ms"] is None:
        return [f"{peer}: seq {reply['seq']}, no reply"]
    line = f"{peer}: seq {reply['seq']}, {milliseconds(reply['rtt_ms'])}, {path_of(reply)}"
    if not reply["became_direct"]:
        return [line]
    return [f"{peer}: direct now, {duration(reply['after_s'])} after the first ping", line]
