"""``dhtvpn join``: resolve the network, check this machine, and run the node here or detached."""

import asyncio
import gc
import logging
import re
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dhtvpn.choices import (
    DEFAULT_DISCOVERY,
    OCTETS_PER_MBIT,
    RELAY_MBIT,
    Discovery,
    parse_discovery,
    require_available,
    with_mainline,
)
from dhtvpn.cli import detach, logs, output
from dhtvpn.cli.nodes import running_process
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
from dhtvpn.errors import DhtVpnError, NotFoundError, SystemRefusedError, UsageError
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.networks import Cipher, KnownNetwork, is_network_name, socket_path
from dhtvpn.system.privileges import require_net_admin

log = logging.getLogger(__name__)
app = new_app()

TUN_DEVICE = Path("/dev/net/tun")
INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # IFNAMSIZ is 16 with its closing zero (linux/if.h)
HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # one label (RFC 1123 section 2.1)
FALLBACK_HOSTNAME = "node"


@dataclass(frozen=True)
class Choices:
    """What the user chose for this join; None and () mean: as last time."""

    hostname: str | None
    bootstrap: tuple[str, ...]
    port: int | None
    interface: str | None
    cipher: Cipher | None
    peers: tuple[str, ...] = ()
    discovery: tuple[Discovery, ...] = ()
    mainline_routers: tuple[str, ...] = ()
    port_mapping: bool | None = None
    relay_mbit: int | None = None


@app.command(
    epilog=examples(
        "sudo dhtvpn join dv1abc... --name laptop",
        "sudo dhtvpn join home --detach              a network known here",
        "sudo dhtvpn join - --network home < id.txt  the id stays out of 'ps'",
        "sudo dhtvpn join home --bootstrap node.example.net:4690",
        "sudo dhtvpn join home --peer 192.0.2.7:50123 --discovery lan,kademlia",
        "sudo dhtvpn join home --mainline     search the public BitTorrent DHT too",
    )
)
def join(
    context: typer.Context,
    *,
    which: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK_ID", help="A network-id, the NAME of a network known here, or - for stdin."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="HOSTNAME", help="This node's name [default: hostname].")
    ] = None,
    bootstrap: Annotated[
        list[str] | None,
        typer.Option("--bootstrap", metavar="HOST:PORT", help="A node to start from. May be repeated."),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="HOST:PORT", help="Where a member is, asked at once. Repeatable."),
    ] = None,
    discovery: Annotated[
        str | None,
        typer.Option(
            "--discovery",
            metavar="SOURCES",
            help="How members are looked for: lan, kademlia, mainline, with commas. [default: lan,kademlia]",
        ),
    ] = None,
    mainline: Annotated[
        bool,
        typer.Option(
            "--mainline", help="Look in the public BitTorrent DHT too, which shows it this address."
        ),
    ] = False,
    mainline_router: Annotated[
        list[str] | None,
        typer.Option(
            "--mainline-router",
            metavar="HOST:PORT",
            help="Where that DHT is entered, in place of its public hosts. May be repeated.",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", min=1, max=65535, help="The UDP port to use.")
    ] = None,
    interface: Annotated[
        str | None, typer.Option("--interface", metavar="IFNAME", help="The TUN device's name.")
    ] = None,
    cipher: Annotated[
        Cipher | None,
        typer.Option(
            "--cipher", help="What seals packets; AES only where both ends want it. [default: auto]"
        ),
    ] = None,
    port_mapping: Annotated[
        bool | None,
        typer.Option(
            "--port-mapping/--no-port-mapping",
            help="Ask the router to forward the port (PCP, NAT-PMP, UPnP). [default: ask]",
            show_default=False,
        ),
    ] = None,
    no_relay: Annotated[
        bool, typer.Option("--no-relay", help="Send nothing on for other members that cannot connect.")
    ] = False,
    relay_rate: Annotated[
        int | None,
        typer.Option(
            "--relay-rate", metavar="MBIT", min=1, max=100_000, help="Sent on a second. [default: 100]"
        ),
    ] = None,
    detached: Annotated[
        bool, typer.Option("--detach", help="Run in the background; return when the node is ready.")
    ] = False,
    verbose: VerboseOption = 0,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join a network and stay in it: Ctrl-C leaves nothing behind.

    What you choose (name, bootstrap, peer, discovery, mainline, port, interface, cipher, port mapping, relay)
    is remembered for the next time. A network that is new to this machine is called net-... here, or as you
    say with --network.
    """
    chosen = session(context, state_dir, network, as_json)
    sources = parse_discovery(discovery) if discovery is not None else ()
    if mainline:
        sources = with_mainline(sources)
    choices = Choices(
        name,
        tuple(bootstrap or ()),
        port,
        interface,
        cipher,
        tuple(peer or ()),
        sources,
        tuple(mainline_router or ()),
        port_mapping,
        0 if no_relay else relay_rate,
    )
    _check(choices)
    known = _resolve(chosen, which, choices)
    _check_machine(chosen, known)
    if detached:
        _start_detached(chosen, known, verbose)
    else:
        _run_here(chosen, known, verbose)


def _check(choices: Choices) -> None:
    """Raises UsageError for what cannot be right, before anything is remembered."""
    if choices.hostname is not None and not HOSTNAME.fullmatch(choices.hostname.lower()):
        raise UsageError(
            f"--name {choices.hostname!r} is no host name: use up to 63 of the characters a-z, 0-9 and -, "
            "with no - at either end"
        )
    for address in (*choices.bootstrap, *choices.peers, *choices.mainline_routers):
        split_host_port(address)
    require_available(choices.discovery)
    if choices.interface is not None and not INTERFACE_NAME.fullmatch(choices.interface):
        raise UsageError(
            f"--interface {choices.interface!r} is no interface name: use up to 15 letters, digits, _ . -"
        )


def _resolve(chosen: Session, which: str, choices: Choices) -> KnownNetwork:
    """The network that ``which`` means, with the choices remembered.

    Raises InvalidNetworkIdError for a mistyped network-id, NotFoundError for a name not known here.
    """
    text = sys.stdin.readline().strip() if which == "-" else which.strip()
    if which == "-" and not text:
        raise UsageError("join - reads the network-id from standard input, and nothing came")
    hostname = choices.hostname.lower() if choices.hostname else None
    if is_network_name(text):
        try:
            network_id = chosen.store.find(text).network_id
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}: join it by its network-id, which 'dhtvpn create' printed "
                "(with sudo the state directory is another one than without)"
            ) from None
    else:
        network_id = NetworkId.decode(text)
        # It may be the very network whose file is damaged: say so before a new identity is made for it.
        for damaged in chosen.store.damaged():
            output.notice(f"dhtvpn: {damaged}")
    return chosen.store.remember(
        network_id,
        name=chosen.network,
        hostname=hostname,
        port=choices.port,
        interface=choices.interface,
        cipher=choices.cipher,
        bootstrap=choices.bootstrap,
        peers=choices.peers,
        discovery=choices.discovery,
        mainline_routers=choices.mainline_routers,
        port_mapping=choices.port_mapping,
        relay_mbit=choices.relay_mbit,
    )


def _check_machine(chosen: Session, known: KnownNetwork) -> None:
    """Raises DhtVpnError when it runs already, SystemRefusedError without privilege or TUN device."""
    process_id = running_process(chosen, known.name)
    if process_id is not None:
        raise DhtVpnError(
            f"this machine is already in {known.name} (pid {process_id}): "
            "see 'dhtvpn status', or stop it with 'dhtvpn leave'"
        )
    require_available(known.discovery)
    require_net_admin()
    if not TUN_DEVICE.exists():
        raise SystemRefusedError(
            f"{TUN_DEVICE} is missing: load it with 'modprobe tun'; "
            "in a container, pass --device /dev/net/tun --cap-add NET_ADMIN"
        )


def _start_detached(chosen: Session, known: KnownNetwork, verbose: int) -> None:
    """Hand the network to the child by name: its network-id must not show in ``ps``."""
    arguments = ["--state-dir", str(chosen.state_dir), "join", known.name, *["-v"] * verbose]
    log_file = known.directory / logs.FILE_NAME

    def progress(kind: str, text: str) -> None:
        if not chosen.as_json:
            output.line(text)

    process_id = detach.start(arguments, log_file, progress)
    if chosen.as_json:
        output.json_document(
            {
                "network": known.name,
                "pid": process_id,
                "socket": str(socket_path(chosen.state_dir, known.name)),
                "log": str(log_file),
            }
        )
    else:
        output.line(f"{known.name} runs in the background (pid {process_id}); its log is {log_file}")


def _run_here(chosen: Session, known: KnownNetwork, verbose: int) -> None:
    """Run the node in this process until it is told to stop."""
    # Much to import, which checks and --detach do without. None of it is garbage: looking takes time.
    gc.disable()
    from dhtvpn.daemon import NodeConfig, run_node  # noqa: PLC0415

    gc.enable()

    config = NodeConfig(
        state_dir=chosen.state_dir,
        network_directory=known.directory,
        network=known.name,
        network_id=known.network_id,
        hostname=known.hostname or machine_hostname(),
        bootstrap=known.bootstrap,
        port=known.port,
        interface=known.interface,
        cipher=known.cipher or Cipher.AUTO,
        socket_path=socket_path(chosen.state_dir, known.name),
        peers=known.peers,
        discovery=known.discovery or DEFAULT_DISCOVERY,
        mainline_routers=known.mainline_routers,
        port_mapping=known.port_mapping is not False,
        relay_octets_per_s=OCTETS_PER_MBIT * (RELAY_MBIT if known.relay_mbit is None else known.relay_mbit),
    )
    parent = detach.parent_waiting()
    logs.start(verbose, known.directory / logs.FILE_NAME if parent else None)

    log.debug("the node's code is loaded")

    def report(kind: str, text: str) -> None:
        if parent is not None:
            log.info("%s: %s", kind, text)
            parent.report(kind, text)
        elif chosen.as_json:
            output.json_line({"time": round(time.time(), 3), "kind": kind, "text": output.plain(text)})
        else:
            output.line(text)

    with detach.telling(parent):
        asyncio.run(run_node(config, report, parent.ready if parent else lambda: None))


def machine_hostname() -> str:
    """This machine's short hostname as a node name: lower case, one label, only a-z, 0-9 and -."""
    label = socket.gethostname().partition(".")[0].lower()
    cleaned = re.sub(r"[^a-z0-9]+", "-", label).strip("-")[:63].strip("-")
    return cleaned or FALLBACK_HOSTNAME
