"""``dhtvpn create``: make a network."""

from ipaddress import IPv4Network
from typing import Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.options import JsonOption, StateDirOption, examples, new_app, session
from dhtvpn.errors import UsageError
from dhtvpn.membership.addresses import ipv4_network, ipv6_network
from dhtvpn.membership.network_id import Mode

app = new_app()


@app.command(
    epilog=examples(
        "dhtvpn create home",
        "dhtvpn create office --ipv4 10.77.0.0/16",
        "ID=$(dhtvpn create home | head -n 1)",
    )
)
def create(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="This machine's word for it: a-z, 0-9, -.")],
    mode: Annotated[
        str, typer.Option("--mode", metavar="MODE", help="open: whoever holds the network-id is a member.")
    ] = "open",
    ipv4: Annotated[
        str | None,
        typer.Option("--ipv4", metavar="CIDR", help="The overlay's IPv4 network, instead of a derived one."),
    ] = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new network and print its network-id.

    The network-id is the key to the network: in an open network whoever holds it is a member. Hand it
    to your other machines and to nobody else.
    """
    chosen = session(context, state_dir, None, as_json)
    network = chosen.store.create(name, _mode(mode), _ipv4(ipv4))
    if chosen.as_json:
        output.json_document(
            {
                "network_id": network.network_id.encode(),
                "name": network.name,
                "ipv4": str(ipv4_network(network.network_id)),
                "ipv6": str(ipv6_network(network.network_id)),
            }
        )
        return
    output.line(network.network_id.encode())
    output.notice(f"Join it here:            sudo dhtvpn join {network.name}")
    output.notice("Join it on each machine: sudo dhtvpn join NETWORK_ID   (the line above)")
    output.notice("Whoever holds the network-id is a member: hand it over as you would a key.")


def _mode(text: str) -> Mode:
    if text != "open":
        raise UsageError(f"--mode {text!r} is not known to this version: it makes networks of mode open")
    return Mode.OPEN


def _ipv4(text: str | None) -> IPv4Network | None:
    if text is None:
        return None
    try:
        network = IPv4Network(text, strict=False)
    except ValueError:
        raise UsageError(f"--ipv4 {text!r} is no network: write it like 10.77.0.0/16") from None
    if "/" not in text:
        raise UsageError(f"--ipv4 {text!r} lacks its prefix length: write it like 10.77.0.0/16")
    if str(network) != text:
        raise UsageError(f"--ipv4 {text!r} is an address inside a network: did you mean {network}?")
    return network
