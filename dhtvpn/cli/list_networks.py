"""``dhtvpn list``: the networks that this machine knows."""

from typing import Annotated, Any

import typer

from dhtvpn.cli import output, views
from dhtvpn.cli.nodes import running_process
from dhtvpn.cli.options import JsonOption, Session, StateDirOption, examples, new_app, session
from dhtvpn.membership.addresses import ipv4_network, ipv6_network
from dhtvpn.networks import KnownNetwork

app = new_app()


@app.command(
    epilog=examples(
        "dhtvpn list",
        "dhtvpn list --network-ids        with the network-ids, which are secret",
        "dhtvpn list --json",
    )
)
def list_networks(
    context: typer.Context,
    *,
    network_ids: Annotated[
        bool, typer.Option("--network-ids", help="Print the network-ids too. They are secret.")
    ] = False,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the networks that this machine created or joined, and which are running."""
    chosen = session(context, state_dir, None, as_json)
    rows = [_row(chosen, network, network_ids) for network in chosen.store.list()]
    damaged = [str(error) for error in chosen.store.damaged()]
    if chosen.as_json:
        output.json_document({"networks": rows, "damaged": damaged, "state_dir": str(chosen.state_dir)})
        return
    for sentence in damaged:
        output.notice(f"dhtvpn: {sentence}")
    if not rows:
        output.line(f"No network is known in {chosen.state_dir}. Make one: dhtvpn create NAME")
        return
    output.show(views.networks(rows))
    for row in rows if network_ids else []:
        output.line(f"{row['name']}: {row['network_id']}")


def _row(chosen: Session, network: KnownNetwork, with_id: bool) -> dict[str, Any]:
    process_id = running_process(chosen, network.name)
    row: dict[str, Any] = {
        "name": network.name,
        "id": network.network_id.short,
        "mode": network.network_id.mode.name.lower(),
        "ipv4": str(ipv4_network(network.network_id)),
        "ipv6": str(ipv6_network(network.network_id)),
        "created_here": network.created_here,
        "running": process_id is not None,
        "pid": process_id,
    }
    if with_id:
        row["network_id"] = network.network_id.encode()
    return row
