"""``dhtvpn stock-peer``: attach a plain WireGuard client, such as the phone app, to this node."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from dhtvpn.cli import output, views
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session
from dhtvpn.errors import UsageError
from dhtvpn.networks import NAME_PATTERN

app = new_app(no_args_is_help=True)

KEY_BYTES = 32  # X25519 public key (RFC 7748)
KEEPALIVE_S = 25  # wg(8) recommends it for a client behind NAT

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Your word for the client: a-z, 0-9, -.")]


@app.callback(
    epilog=examples(
        "wg genkey | tee phone.key | wg pubkey",
        "dhtvpn stock-peer add phone --public-key KEY > phone.conf",
        "dhtvpn stock-peer list",
    )
)
def stock_peer() -> None:
    """Attach plain WireGuard clients to this node.

    A stock peer runs the phone app, wg-quick or wireguard-go instead of dhtvpn. It reaches this node
    only, and only while this node runs.
    """


@app.command(epilog=examples("dhtvpn stock-peer add phone --public-key KEY > phone.conf"))
def add(
    context: typer.Context,
    *,
    name: NameArgument,
    public_key: Annotated[
        str, typer.Option("--public-key", metavar="KEY", help="The client's public key, base64.")
    ],
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attach a client and print its configuration, which holds a secret."""
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a stock peer: use 1 to 32 of a-z, 0-9 and -")
    _check_key(public_key)
    chosen = session(context, state_dir, network, as_json)
    setup = node_for(chosen).add_stock_peer(name, public_key)
    if chosen.as_json:
        output.json_document(setup)
        return
    typer.echo(wg_quick(setup))
    output.notice("Put the client's private key in. The preshared key above is secret and not shown again.")


@app.command("list", epilog=examples("dhtvpn stock-peer list", "dhtvpn stock-peer list --json"))
def list_stock_peers(
    context: typer.Context,
    *,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the clients attached to this node."""
    chosen = session(context, state_dir, network, as_json)
    rows = node_for(chosen).stock_peers()
    if chosen.as_json:
        output.json_document({"stock_peers": rows})
    elif rows:
        output.show(views.stock_peers(rows))
    else:
        output.line("No stock peer is attached to this node.")


@app.command(epilog=examples("dhtvpn stock-peer remove phone"))
def remove(
    context: typer.Context,
    *,
    name: NameArgument,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Detach a client: it is refused from now on."""
    chosen = session(context, state_dir, network, as_json)
    node_for(chosen).remove_stock_peer(name)
    if chosen.as_json:
        output.json_document({"removed": name})
    else:
        output.line(f"removed {name}")


def wg_quick(setup: Mapping[str, Any]) -> str:
    """A wg-quick(8) configuration for a ``schema.StockPeerSetup``; the private key is left to the user."""
    addresses = [f"{setup['ipv4']}/32"] if setup["ipv4"] else []
    addresses += [f"{setup['ipv6']}/128"] if setup["ipv6"] else []
    endpoint = setup["endpoint"]
    lines = [
        f"# dhtvpn stock peer {setup['name']}",
        "[Interface]",
        f"# the private key that belongs to {setup['public_key']}",
        "PrivateKey = PUT-THE-CLIENT'S-PRIVATE-KEY-HERE",
        f"Address = {', '.join(addresses)}",
        "",
        "[Peer]",
        f"PublicKey = {setup['node_public_key']}",
        f"PresharedKey = {setup['preshared_key']}",
        f"AllowedIPs = {', '.join(setup['allowed_ips'])}",
        f"Endpoint = {endpoint}" if endpoint else "# Endpoint = THIS-NODE'S-ADDRESS:PORT (not known yet)",
        f"PersistentKeepalive = {KEEPALIVE_S}",
    ]
    return "\n".join(output.plain(line) for line in lines)


def _check_key(text: str) -> None:
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != KEY_BYTES:
        raise UsageError("--public-key is no WireGuard key: it is 44 characters, as 'wg pubkey' prints it")
