"""The volunteer's node: DHT and STUN on one UDP port, and a relay where the volunteer wants one.

It needs no root and no TUN device. What it stores is sealed: it cannot read a record, nor tell which
network it belongs to or that two epochs belong together (docs/threat-model.md).
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from dhtvpn import files
from dhtvpn.confinement import landlock
from dhtvpn.confinement.account import take_over
from dhtvpn.confinement.places import readable
from dhtvpn.confinement.process import confine
from dhtvpn.control import bootstrap_figures
from dhtvpn.control.plain_http import PlainHttp
from dhtvpn.control.schema import API_PREFIX
from dhtvpn.control.socket_file import GROUP, SOCKET_BACKLOG, take_socket
from dhtvpn.discovery.caps import Caps
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.kept import KeptState
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.remembered import RememberedContacts
from dhtvpn.discovery.tokens import TokenIssuer
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError, UsageError
from dhtvpn.nat.own_address import outgoing_addresses
from dhtvpn.nat.plain_stun import PlainStunService
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.relay_service import RelayService
from dhtvpn.nat.relay_table import RelayTable
from dhtvpn.node.bootstrap import Bootstrapper
from dhtvpn.volunteer_figures import Figures

log = logging.getLogger(__name__)

REPORT_S = 60.0

READ_SHARE: Final = 0.75
"""Of one core, for reading datagrams and acting on them: a volunteer's node has nothing else to do."""

PROGRAM_OCTETS: Final = 256 << 20
"""What the process may have besides its caches before the kernel refuses memory: five times its usual size,
for threads that look names up, and fragmentation. A safety net (RLIMIT_DATA), not the cap."""


@dataclass(frozen=True)
class RelayLimits:
    """Octets a second that a volunteer relays: in all, and of one address."""

    rate: float
    source_rate: float


@dataclass(frozen=True)
class VolunteerConfig:
    """``listen`` holds at most one numeric address per family, all with one port. ``bootstrap`` names other
    nodes (``HOST:PORT``) so that the volunteers' nodes form one DHT; without any, this is the first.
    ``state_dir``: None keeps nothing and has no status. ``memory_octets``: for its caches. ``metrics``: a
    loopback address and a TCP port. ``relay``: None relays nothing."""

    listen: Sequence[tuple[str, int]]
    bootstrap: Sequence[str]
    state_dir: Path | None
    memory_octets: int
    answers_per_s: float
    metrics: tuple[str, int] | None = None
    relay: RelayLimits | None = None


async def run_bootstrap(
    config: VolunteerConfig, report: Callable[[str, str], None], ready: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM. Raises UsageError, SystemRefusedError."""
    host_v4, host_v6, number = _addresses(config.listen)
    drops = Drops()
    async with contextlib.AsyncExitStack() as stack:
        port = await UdpPort.open(
            number,
            host_v4,
            host_v6,
            drops=drops,
            tunnel_sockets=config.relay is not None,
            reading=False,
            share=READ_SHARE,
        )
        stack.callback(port.close)
        caps = Caps.for_memory(config.memory_octets, config.answers_per_s)
        figures = Figures(port, drops, config.memory_octets, caps)
        stack.callback(figures.close)
        contacts = _contacts(config.state_dir)
        listeners = _listeners(config, stack)
        _cap_memory(config.memory_octets)
        _confine(config.state_dir)
        stun = PlainStunService(port)
        families = frozenset(port.families)
        own = OwnIds(families, os.urandom, addresses=_own_addresses(config.listen))
        directory = KademliaDirectory(figures.send, own=own, drops=drops, families=families, caps=caps)
        port.on_dht(figures.counting(directory.handle_datagram))
        port.on_exhausted(directory.slow_down)
        port.filter_in_kernel(None, relaying=config.relay is not None)
        figures.listen = [str(Endpoint(host, number)) for host in (host_v4, host_v6) if host is not None]
        figures.directory, figures.stun = directory, stun
        if config.state_dir is not None:
            await stack.enter_async_context(KeptState(config.state_dir).keeping(directory))
        await _serve_figures(figures, listeners, stack)
        if config.relay is not None:
            figures.relay = _relay(port, config.relay, drops, stack)
        port.start_reading()
        await directory.start()
        report("start", f"bootstrap node on {', '.join(figures.listen)} (UDP)")
        ready()
        try:
            await _serve(directory, port, config.bootstrap, contacts, report=report, drops=drops)
        finally:
            _save(contacts, directory, report)
            await directory.close()


def _own_addresses(listen: Sequence[tuple[str, int]]) -> list[str]:
    """Those it listens on, and where that is all of them, those from which it sends."""
    hosts = [ip_address(host) for host, _ in listen]
    outgoing = [ip_address(host) for host in outgoing_addresses()]
    anywhere = {host.version for host in hosts if host.is_unspecified}
    given = [host for host in hosts if not host.is_unspecified]
    return [str(host) for host in [*given, *(host for host in outgoing if host.version in anywhere)]]


def _relay(port: UdpPort, limits: RelayLimits, drops: Drops, stack: contextlib.AsyncExitStack) -> RelayTable:
    """Relay for members of any network."""
    now = time.monotonic()
    tokens = TokenIssuer(os.urandom, now)
    table = RelayTable(tokens, rate=limits.rate, source_rate=limits.source_rate, drops=drops, now=now)
    service = RelayService(port, table, drops)
    stack.callback(service.close)
    service.start()
    return table


def _contacts(state_dir: Path | None) -> RememberedContacts | None:
    """Where contacts are kept; a directory that cannot be made is an error, since it was asked for."""
    if state_dir is None:
        return None
    files.make_directory(state_dir)
    return RememberedContacts(state_dir / "contacts.json")


def _save(
    contacts: RememberedContacts | None, directory: KademliaDirectory, report: Callable[[str, str], None]
) -> None:
    """A disk that is full costs a warning."""
    if contacts is None:
        return
    try:
        contacts.save(directory.contacts())
    except SystemRefusedError as error:
        report("warning", str(error))


async def _serve(
    directory: KademliaDirectory,
    port: UdpPort,
    bootstrap: Sequence[str],
    contacts: RememberedContacts | None,
    *,
    report: Callable[[str, str], None],
    drops: Drops,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    remembered = contacts.load() if contacts is not None else []
    joiner = Bootstrapper(
        directory=directory,
        names=bootstrap,
        remembered=remembered,
        families=frozenset(port.families),
        say=report,
        answered=lambda: None,
    )

    async def tell() -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            port.count_kernel_drops()
            report(
                "status",
                f"{directory.size} nodes, {directory.stored} records, {drops.total()} datagrams dropped",
            )
            _save(contacts, directory, report)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(tell())]
            if bootstrap or remembered:
                tasks.append(group.create_task(joiner.run()))
            await stop.wait()
            for task in tasks:
                task.cancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _listeners(config: VolunteerConfig, stack: contextlib.AsyncExitStack) -> list[socket.socket]:
    """The sockets for status and metrics, bound while the process may still do so."""
    listeners = []
    if config.state_dir is not None:
        path = bootstrap_figures.status_socket(config.state_dir)
        taken = "a bootstrap node with this state directory and port is running (pid {pid})"
        listeners.append(take_socket(path, GROUP, taken=taken))
        stack.callback(path.unlink, missing_ok=True)
    if config.metrics is not None:
        listeners.append(_metrics_socket(*config.metrics))
    for listener in listeners:
        stack.callback(listener.close)
    return listeners


def _metrics_socket(host: str, number: int) -> socket.socket:
    """Raises UsageError for an address that others can reach, SystemRefusedError."""
    address = ip_address(host)
    if not address.is_loopback:
        raise UsageError(f"metrics on {host}: only on a loopback address, because nothing protects them")
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, number))
        listener.listen(SOCKET_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SystemRefusedError(
            f"cannot listen on TCP {host} port {number} ({error.strerror}): choose another with --metrics"
        ) from error
    return listener


async def _serve_figures(
    figures: Figures, listeners: list[socket.socket], stack: contextlib.AsyncExitStack
) -> None:
    """The status on the Unix socket, the metrics on TCP."""
    for listener in listeners:
        if listener.family == socket.AF_UNIX:
            documents = {f"{API_PREFIX}/status": lambda: bootstrap_figures.as_json(figures.status())}
        else:
            documents = {"/metrics": lambda: bootstrap_figures.as_prometheus(figures.status())}
        server = PlainHttp(documents)
        await server.start(listener)
        stack.push_async_callback(server.close)


def _addresses(listen: Sequence[tuple[str, int]]) -> tuple[str | None, str | None, int]:
    """The IPv4 host, the IPv6 host and the port. Raises UsageError."""
    hosts: dict[int, str] = {}
    for host, _ in listen:
        try:
            version = ip_address(host).version
        except ValueError:
            raise UsageError(
                f"--listen takes a numeric address, such as 0.0.0.0 or [::], not {host!r}"
            ) from None
        if version in hosts:
            raise UsageError("--listen takes one IPv4 and one IPv6 address at most")
        hosts[version] = host
    numbers = {number for _, number in listen}
    if len(numbers) != 1:
        raise UsageError("give --listen once, or twice with the same port (one IPv4, one IPv6 address)")
    return hosts.get(4), hosts.get(6), numbers.pop()


def _cap_memory(caches: int) -> None:
    """Let the kernel refuse what no cap of ours should ever ask for (getrlimit(2), RLIMIT_DATA)."""
    limit = caches + PROGRAM_OCTETS
    with contextlib.suppress(OSError, ValueError):  # a lower one is there already
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _confine(state_dir: Path | None) -> None:
    """The sockets are bound: nothing takes a privilege any more, and nothing is written but the state."""
    try:
        who = take_over([] if state_dir is None else [state_dir])
    except OSError as error:
        log.warning("cannot hand over %s (%s): nothing is remembered", state_dir, error.strerror)
        who = None
    places = readable(as_root=who is None and os.geteuid() == 0)
    if state_dir is not None:
        places.append((state_dir, landlock.KEEP))
    confine(who, (), places)
