"""``dhtvpn why PEER``: what was tried on the way to a peer, what was chosen and why, what would be better."""

from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session

app = new_app()


@app.command(
    epilog=examples(
        "dhtvpn why laptop",
        "dhtvpn why 10.77.3.9 --json | jq '.advice[].text'",
        "",
        "Ends with 3 when there is no such peer. 'dhtvpn ping PEER --until-direct'",
        "tries again at once.",
    )
)
def why(
    context: typer.Context,
    *,
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="A peer's name, the start of its id, or its address.")
    ],
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain the path to a peer: every candidate pair tried, relays, and what would make it direct."""
    chosen = session(context, state_dir, network, as_json)
    document = node_for(chosen).why(peer)
    if chosen.as_json:
        output.json_document(document)
    else:
        from dhtvpn.cli.why_view import why_view  # noqa: PLC0415 - rich takes 40 ms to load

        output.show(why_view(document))
