"""``dhtvpn bootstrap``: a volunteer's node."""

import asyncio
import ipaddress
import time
from typing import Annotated

import typer

from dhtvpn.cli import logs, output
from dhtvpn.cli.options import JsonOption, StateDirOption, VerboseOption, examples, new_app, session
from dhtvpn.endpoint import split_host_port
from dhtvpn.errors import UsageError

app = new_app()

DEFAULT_PORT = 4690
DEFAULT_LISTEN = (f"0.0.0.0:{DEFAULT_PORT}",)


@app.command(
    epilog=examples(
        "dhtvpn bootstrap --listen 0.0.0.0:4690",
        "dhtvpn bootstrap --listen 0.0.0.0:4690 --listen [::]:4690",
        "dhtvpn bootstrap --listen 0.0.0.0:4690 --bootstrap node.example.net:4690",
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
    verbose: VerboseOption = 0,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a volunteer's node: strangers find each other through it.

    It answers the DHT and STUN on one UDP port. It needs no root and makes no tunnel, and it cannot
    read what it stores.
    """
    chosen = session(context, state_dir, None, as_json)
    addresses = tuple(_listen_address(text) for text in listen or DEFAULT_LISTEN)
    for text in others or ():
        split_host_port(text)
    from dhtvpn.volunteer import run_bootstrap  # noqa: PLC0415 - heavy, and --help does without

    logs.start(verbose)

    def report(kind: str, text: str) -> None:
        if chosen.as_json:
            output.json_line({"time": round(time.time(), 3), "kind": kind, "text": output.plain(text)})
        else:
            output.line(text)

    # Two volunteers on one machine differ in their ports, and must not share one node's memory.
    memory = chosen.state_dir / "bootstrap" / str(addresses[0][1])
    asyncio.run(run_bootstrap(addresses, tuple(others or ()), memory, report, lambda: None))


def _listen_address(text: str) -> tuple[str, int]:
    host, port = split_host_port(text, DEFAULT_PORT)
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        raise UsageError(
            f"--listen {text!r} must be an address of this machine, such as 0.0.0.0:4690 or [::]:4690"
        ) from None
