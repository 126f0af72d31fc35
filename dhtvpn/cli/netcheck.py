"""``dhtvpn netcheck``: what this network lets a node do, without joining one."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from dhtvpn.cli import output
from dhtvpn.cli.exits import DONE, NOT_HERE, TIMED_OUT
from dhtvpn.cli.nodes import running_nodes
from dhtvpn.cli.options import (
    JsonOption,
    NetworkOption,
    Session,
    StateDirOption,
    VerboseOption,
    examples,
    new_app,
    session,
)
from dhtvpn.endpoint import split_host_port
from dhtvpn.errors import DhtVpnError
from dhtvpn.networks import KnownNetwork

if TYPE_CHECKING:
    from dhtvpn.netcheck.report import Report
    from dhtvpn.netcheck.run import NetcheckConfig

app = new_app()

EXITS = {"works": DONE, "no answer": TIMED_OUT, "no address": TIMED_OUT, "not tested": NOT_HERE}
"""By ``udp`` of the document."""


@app.command(
    epilog=examples(
        "dhtvpn netcheck --bootstrap node.example.net:4690",
        "dhtvpn netcheck                  asks nodes that earlier joins remember",
        "dhtvpn netcheck --json | jq -r .verdict",
        "",
        "Ends with 0 when UDP works, with 4 when no DHT node answers, and with 3",
        "when none is known that could be asked.",
    )
)
def netcheck(
    context: typer.Context,
    *,
    bootstrap: Annotated[
        list[str] | None,
        typer.Option("--bootstrap", metavar="HOST:PORT", help="A DHT node to ask. May be repeated."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", min=1, max=65535, help="The UDP port to check.")
    ] = None,
    port_mapping: Annotated[
        bool,
        typer.Option(
            "--port-mapping/--no-port-mapping",
            help="Ask the router to forward a port for a moment. [default: ask]",
            show_default=False,
        ),
    ] = True,
    verbose: VerboseOption = 0,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find out what this network lets a node do: UDP, NAT, IPv6, router, DHT.

    It joins nothing and takes a few seconds. The more DHT nodes it can ask, the more it finds out; two at
    different addresses tell everything.
    """
    chosen = session(context, state_dir, network, as_json)
    for address in bootstrap or ():
        split_host_port(address)
    from dhtvpn.cli import logs  # noqa: PLC0415 - --help does without

    logs.start(verbose)
    config = _config(chosen, tuple(bootstrap or ()), port, port_mapping)
    from dhtvpn.netcheck.document import document  # noqa: PLC0415

    with _progress(chosen.as_json) as progress:
        found = document(_run(config, progress))
    if chosen.as_json:
        output.json_document(found)
    else:
        from dhtvpn.cli import netcheck_view  # noqa: PLC0415 - rich

        output.show(netcheck_view.view(found))
    raise typer.Exit(EXITS[found["udp"]])


def _config(
    chosen: Session, bootstrap: tuple[str, ...], port: int | None, port_mapping: bool
) -> "NetcheckConfig":
    from dhtvpn.netcheck.contacts import known_contacts  # noqa: PLC0415
    from dhtvpn.netcheck.report import RunningNode  # noqa: PLC0415
    from dhtvpn.netcheck.run import NetcheckConfig  # noqa: PLC0415 - much to import

    networks = _networks(chosen)
    return NetcheckConfig(
        known_contacts(bootstrap, networks),
        networks=tuple((known.name, known.network_id) for known in networks),
        running=tuple(RunningNode(*facts) for facts in running_nodes(chosen)),
        port=port,
        port_mapping=port_mapping,
    )


def _networks(chosen: Session) -> list[KnownNetwork]:
    """The one that --network names, else every one that can be read here.

    Raises NotFoundError for a name that is not known."""
    if chosen.network is not None:
        return [chosen.store.find(chosen.network)]
    with suppress(DhtVpnError, PermissionError):  # another user's state is no reason to find out nothing
        return chosen.store.list()
    return []


def _run(config: "NetcheckConfig", progress: Callable[[str], None]) -> "Report":
    """SIGTERM ends it as Ctrl-C does: what was asked of routers is given back."""
    from dhtvpn.netcheck.run import run_netcheck  # noqa: PLC0415

    async def until_told() -> "Report":
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is in a task
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run_netcheck(config, progress)

    try:
        return asyncio.run(until_told())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[str], None]]:
    """What is done, on a terminal's one line that goes away; elsewhere nothing."""
    if as_json or not sys.stderr.isatty():
        yield lambda what: None
        return
    from rich.console import Console  # noqa: PLC0415

    done: list[str] = []
    with Console(stderr=True, highlight=False).status("asking ...") as status:

        def show(what: str) -> None:
            done.append(what)
            status.update(f"asking ... ({', '.join(done)} done)")

        yield show
