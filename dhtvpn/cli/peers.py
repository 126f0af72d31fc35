"""``dhtvpn peers``: every other member, in full."""

import typer

from dhtvpn.cli import output, views
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session

app = new_app()


@app.command(epilog=examples("dhtvpn peers", "dhtvpn peers --json", "dhtvpn peers --network office"))
def peers(
    context: typer.Context,
    *,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the other members of the network and the path to each."""
    chosen = session(context, state_dir, network, as_json)
    listing = node_for(chosen).peers()
    if chosen.as_json:
        output.json_document({"peers": listing})
    elif listing:
        output.show(views.peer_details(listing))
    else:
        output.line("No other member seen yet.")
