"""``dhtvpn bootstrap``: a volunteer's node."""

import asyncio
import ipaddress
import time
from pathlib import Path
from typing import Annotated

import typer

from dhtvpn.choices import OCTETS_PER_MBIT
from dhtvpn.cli import logs, output
from dhtvpn.cli.options import JsonOption, StateDirOption, VerboseOption, examples, new_app, session
from dhtvpn.endpoint import split_host_port
from dhtvpn.errors import UsageError

app = new_app()

DEFAULT_PORT = 4690
DEFAULT_LISTEN = (f"0.0.0.0:{DEFAULT_PORT}",)
DEFAULT_MEMORY_MB = 64
DEFAULT_RATE = 2000
DEFAULT_RELAY_MBIT = 100
DEFAULT_RELAY_SOURCE_MBIT = 25


@app.command(
    epilog=examples(
        "dhtvpn bootstrap --listen 0.0.0.0:4690",
        "dhtvpn bootstrap --listen 0.0.0.0:4690 --listen [::]:4690",
        "dhtvpn bootstrap --bootstrap node.example.net:4690 --memory 32",
        "dhtvpn bootstrap --relay --relay-rate 50",
        "dhtvpn bootstrap --metrics 127.0.0.1:9469",
        "dhtvpn bootstrap --status --json | jq .stored",
    )
)
def bootstrap(
    context: typer.Context,
    *,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help=f"An address of this machine [default: {DEFAULT_LISTEN[0]}]. May be repeated.",
        ),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--bootstrap", metavar="HOST:PORT", help="Another node of the DHT. May be repeated."),
    ] = None,
    memory: Annotated[
        int, typer.Option("--memory", metavar="MB", min=1, max=16_384, help="Memory for what it stores.")
    ] = DEFAULT_MEMORY_MB,
    rate: Annotated[
        int, typer.Option("--rate", metavar="N", min=10, max=100_000, help="Requests answered a second.")
    ] = DEFAULT_RATE,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="HOST:PORT", help="Prometheus metrics, on loopback only."),
    ] = None,
    relay: Annotated[
        bool, typer.Option("--relay", help="Relay sealed datagrams between members that cannot connect.")
    ] = False,
    relay_rate: Annotated[
        int,
        typer.Option("--relay-rate", metavar="MBIT", min=1, max=100_000, help="Relayed a second."),
    ] = DEFAULT_RELAY_MBIT,
    relay_source_rate: Annotated[
        int,
        typer.Option("--relay-source-rate", metavar="MBIT", min=1, max=100_000, help="Of one address."),
    ] = DEFAULT_RELAY_SOURCE_MBIT,
    log_addresses: Annotated[
        bool, typer.Option("--log-addresses", help="Show other nodes' addresses in messages and log.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show the node that runs here, and start none.")
    ] = False,
    verbose: VerboseOption = 0,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a volunteer's node: strangers find each other through it.

    It answers the DHT and STUN on one UDP port. It needs no root and makes no tunnel, it cannot read what
    it stores or relays, and it shows nobody's address unless you ask for it.
    """
    chosen = session(context, state_dir, None, as_json)
    addresses = tuple(_listen_address(text) for text in listen or DEFAULT_LISTEN)
    # Two volunteers on one machine differ in their ports, and must not share one node's memory.
    folder = chosen.state_dir / "bootstrap" / str(addresses[0][1])
    if status:
        _show_status(folder, chosen.as_json)
        return
    for text in others or ():
        split_host_port(text)
    measured = None if metrics is None else _metrics_address(metrics)
    from dhtvpn.volunteer import RelayLimits, VolunteerConfig, run_bootstrap  # noqa: PLC0415 - --help does without

    logs.start(verbose, addresses=log_addresses)

    def report(kind: str, text: str) -> None:
        shown = text if log_addresses or kind == "start" else logs.without_addresses(text)
        if chosen.as_json:
            output.json_line({"time": round(time.time(), 3), "kind": kind, "text": output.plain(shown)})
        else:
            output.line(shown)

    limits = RelayLimits(relay_rate * OCTETS_PER_MBIT, relay_source_rate * OCTETS_PER_MBIT)
    config = VolunteerConfig(
        addresses,
        tuple(others or ()),
        folder,
        memory * 1_000_000,
        rate,
        measured,
        limits if relay else None,
    )
    asyncio.run(run_bootstrap(config, report, lambda: None))


def _show_status(folder: Path, as_json: bool) -> None:
    """Ask the node that keeps its state in ``folder``."""
    from dhtvpn.control.bootstrap_figures import status_socket  # noqa: PLC0415
    from dhtvpn.control.client import ControlClient  # noqa: PLC0415 - not for a node

    name = f"a bootstrap node on port {folder.name}"
    document = ControlClient(status_socket(folder), name, "dhtvpn bootstrap").status()
    if as_json:
        output.json_document(document)
        return
    from dhtvpn.cli import bootstrap_view  # noqa: PLC0415 - rich

    output.show(bootstrap_view.status(document))


def _metrics_address(text: str) -> tuple[str, int]:
    """Raises UsageError for what is no loopback address: nothing protects the metrics."""
    host, port = split_host_port(text)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise UsageError(
            f"--metrics {text!r} must be a loopback address, such as 127.0.0.1:9469: nothing protects them"
        )
    return str(address), port


def _listen_address(text: str) -> tuple[str, int]:
    host, port = split_host_port(text, DEFAULT_PORT)
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        raise UsageError(
            f"--listen {text!r} must be an address of this machine, such as 0.0.0.0:4690 or [::]:4690"
        ) from None
