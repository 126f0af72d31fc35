"""``dhtvpn leave``: stop a node, and return when it has gone."""

import typer

from dhtvpn.cli import output
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session

app = new_app()


@app.command(epilog=examples("dhtvpn leave", "dhtvpn leave --network office"))
def leave(
    context: typer.Context,
    *,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop the node of a network and remove its interface.

    The machine still knows the network: 'dhtvpn join NAME' brings it back with the same addresses.
    """
    chosen = session(context, state_dir, network, as_json)
    node = node_for(chosen)
    node.leave()
    if chosen.as_json:
        output.json_document({"left": node.name})
    else:
        output.line(f"left {node.name}; come back with 'sudo dhtvpn join {node.name}'")
