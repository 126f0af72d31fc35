"""``dhtvpn wait``: for scripts that go on when the tunnel is up."""

from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session
from dhtvpn.errors import UsageError

app = new_app()


@app.command(
    epilog=examples(
        "dhtvpn wait                              for any peer",
        "dhtvpn wait --peers 2 --timeout 30",
        "dhtvpn wait --peer laptop && ssh laptop",
        "",
        "Ends with 0 when connected, with 4 at the timeout.",
    )
)
def wait(
    context: typer.Context,
    *,
    peers: Annotated[
        int | None, typer.Option("--peers", metavar="N", min=0, help="How many peers [default: 1].")
    ] = None,
    peer: Annotated[
        str | None, typer.Option("--peer", metavar="NAME", help="This peer: a name, id or address.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0, max=86400, help="Seconds to wait.")
    ] = 60.0,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Return when peers are connected."""
    if peers is not None and peer is not None:
        raise UsageError("wait for --peers or for --peer, not for both")
    chosen = session(context, state_dir, network, as_json)
    connected = node_for(chosen).wait(peers=peers, peer=peer, timeout_s=timeout)
    if chosen.as_json:
        output.json_document({"peers": connected})
    else:
        output.line("connected: " + (", ".join(each["name"] for each in connected) or "nobody"))
