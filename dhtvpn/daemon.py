"""The composition root: builds one node from its configuration, owns every descriptor, and cleans up.

Order of building: lock, keys, port, TUN device, engine, node, local API. Everything is released in the
reverse order, whatever way the node ends; what a ``kill -9`` leaves to the kernel (TUN device, addresses,
routes, sockets, engine) goes with the last descriptor.
"""

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path

from dhtvpn import files
from dhtvpn import identity as identities
from dhtvpn.control.server import ControlServer
from dhtvpn.dataplane import messages as engine_events
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DamagedStateError, SystemRefusedError
from dhtvpn.membership.addresses import ipv4_network, ipv6_address, ipv6_network
from dhtvpn.membership.pairwise import PairCredentials
from dhtvpn.nat.ice import IceAgent
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.reflexive import Survey, survey
from dhtvpn.nat.stun_service import StunService
from dhtvpn.node.api import LocalApi
from dhtvpn.node.claim import OwnClaim
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.events import Events
from dhtvpn.node.node import Node
from dhtvpn.node.surroundings import Surroundings
from dhtvpn.records.record import Candidate
from dhtvpn.system import links
from dhtvpn.system.tun import Tun, open_tun

__all__ = ["NodeConfig", "run_node"]

log = logging.getLogger(__name__)

MTU = 1420
"""Bytes of an inner packet: 1,500 less IPv6, UDP and WireGuard headers (40 + 8 + 32)."""
ENGINE_RETRY_S = 5.0
INTERFACE_NAMES = 16
"""Names tried, from dhtvpn0 on, where the user gave none."""


async def run_node(config: NodeConfig, report: Callable[[str, str], None], ready: Callable[[], None]) -> None:
    """Run a node until SIGINT, SIGTERM or a ``leave`` through the local API.

    ``report`` gets (kind, text) for a person to follow; ``ready`` is called once the interface is up and
    the local API answers. Raises SystemRefusedError and DamagedStateError, each with one clear sentence.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(_locked(config))
        node = await _build(config, stack, report)
        with _stop_on_signal(node.stop_requested):
            await stack.enter_async_context(_serving(node, config.socket_path))
            report(
                "start", f"{config.network}: this is {config.hostname}, {node.claim.address} and {node.ipv6}"
            )
            ready()
            try:
                await node.run()
            finally:
                report("stop", "leaving")
                await node.depart()


async def _build(config: NodeConfig, stack: AsyncExitStack, report: Callable[[str, str], None]) -> Node:
    drops, events, random_bytes = Drops(), Events(report), os.urandom
    directory_path = config.network_directory
    identity = identities.load_or_create(directory_path / "identity.json", random_bytes)
    claim = OwnClaim(directory_path / "claim.json", config.network_id, identity.node_key, time.time())
    await _refuse_collision(config)

    port = await _open_port(config, drops)
    stack.callback(port.close)
    StunService(port)
    tun = _open_interface(config.interface)
    stack.callback(tun.close)
    ipv6 = ipv6_address(config.network_id, identity.node_key)
    ipv4_prefix, ipv6_prefix = ipv4_network(config.network_id), ipv6_network(config.network_id)

    def on_link(address: IPv4Address) -> IPv4Interface:
        return IPv4Interface((address, ipv4_prefix.prefixlen))

    on_links: list[links.Interface] = [on_link(claim.address)]
    if links.has_ipv6():
        on_links.append(IPv6Interface((ipv6, ipv6_prefix.prefixlen)))
    else:
        events.say("warning", "this machine has no IPv6: peers reach it by its IPv4 address only")
    await links.configure(tun.name, on_links, MTU)
    engine = _Engine(tun, port, [claim.address, ipv6])
    stack.push_async_callback(engine.close)
    await engine.start()
    directory = KademliaDirectory(port.send_dht, drops=drops, families=frozenset(port.families))
    port.on_dht(directory.handle_datagram)
    stack.push_async_callback(directory.close)

    async def host_addresses() -> Sequence[links.Address]:
        return await links.host_addresses(exclude_interfaces={tun.name})

    async def survey_from(servers: Sequence[Endpoint], own: Sequence[links.Address]) -> Survey:
        return await survey(port, servers, host_addresses=[str(address) for address in own])

    def make_agent(
        credentials: PairCredentials, local: Sequence[Candidate], remote: Sequence[Candidate]
    ) -> IceAgent:
        return IceAgent(
            port,
            credentials,
            local=[(candidate.endpoint, candidate.kind) for candidate in local],
            remote=[(candidate.endpoint, candidate.kind) for candidate in remote],
        )

    async def move_address(held: IPv4Address, address: IPv4Address) -> None:
        await links.add_address(tun.name, on_link(address))
        engine.set_addresses([address, ipv6])
        await links.remove_address(tun.name, on_link(held))

    node = Node(
        config,
        identity=identity,
        claim=claim,
        port=port,
        directory=directory,
        engine=engine.process,
        interface=tun.name,
        surroundings=Surroundings(
            network_id=config.network_id, port=port.port, host_addresses=host_addresses, survey=survey_from
        ),
        make_agent=make_agent,
        move_address=move_address,
        events=events,
        drops=drops,
        random_bytes=random_bytes,
    )
    engine.node = node
    stack.push_async_callback(node.close)
    return node


class _Engine:
    """The engine of this daemon: started, and started again when it dies, on the same descriptors."""

    def __init__(self, tun: Tun, port: UdpPort, addresses: list[links.Address]) -> None:
        self._tun = tun
        self._port = port
        self._addresses = addresses
        self._restart: asyncio.Task[None] | None = None
        self.node: Node | None = None
        self.process: EngineProcess

    async def start(self) -> None:
        """Raises SystemRefusedError."""
        self.process = await EngineProcess.start(
            self._tun.fd,
            self._port.engine_sockets,
            self._addresses,
            MTU,
            self._event,
            self._died,
            receive=self._port.kernel_demux,
        )
        self._port.on_data(self.process.datagram)

    def set_addresses(self, addresses: list[links.Address]) -> None:
        self._addresses = addresses
        self.process.configure(addresses, MTU)

    async def close(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        await self.process.close()

    def _event(self, event: engine_events.Event) -> None:
        if self.node is not None:
            self.node.engine_event(event)

    def _died(self, code: int) -> None:
        log.warning("the engine process ended with code %d", code)
        self._restart = asyncio.create_task(self._start_again())

    async def _start_again(self) -> None:
        """Until it runs. A crash at every start must not become a busy loop."""
        while True:
            try:
                await self.start()
            except SystemRefusedError as error:
                log.error("%s; trying again in %.0f s", error, ENGINE_RETRY_S)
                await asyncio.sleep(ENGINE_RETRY_S)
                continue
            if self.node is not None:
                self.node.engine_replaced(self.process)
            return


async def _open_port(config: NodeConfig, drops: Drops) -> UdpPort:
    """The port that the user asked for, else the one of the last run: peers' NATs still have a mapping
    towards it, and peers remember it. Raises SystemRefusedError."""
    if config.port is not None:
        return await UdpPort.open(config.port, drops=drops, tunnel_sockets=True)
    path = config.network_directory / "port.json"
    port = await _reopen_port(path, drops) or await UdpPort.open(None, drops=drops, tunnel_sockets=True)
    try:
        files.write_json(path, {"port": port.port})
    except BaseException:
        port.close()
        raise
    return port


async def _reopen_port(path: Path, drops: Drops) -> UdpPort | None:
    """The port that ``path`` names, or None: first run, damaged file, or somebody else has it now."""
    try:
        stored = files.read_json(path)
        if stored is None:
            return None
        return await UdpPort.open(int(stored["port"]), drops=drops, tunnel_sockets=True)
    except (DamagedStateError, SystemRefusedError, KeyError, TypeError, ValueError) as error:
        log.info("the port of the last run is not to be had (%s): choosing another", error)
        return None


async def _refuse_collision(config: NodeConfig) -> None:
    """An overlay subnet that the machine routes elsewhere would cut the machine off from something."""
    for network in (ipv4_network(config.network_id), ipv6_network(config.network_id)):
        if routes := await links.routes_overlapping(network):
            raise SystemRefusedError(
                f"the network's addresses {network} collide with a route of this machine ({routes[0]}): "
                "leave the other network first, or create one with --ipv4 CIDR in a free range"
            )


def _open_interface(wanted: str | None) -> Tun:
    if wanted is not None:
        return open_tun(wanted)
    for number in range(INTERFACE_NAMES):
        name = f"dhtvpn{number}"
        if not links.interface_exists(name):
            return open_tun(name)
    raise SystemRefusedError("dhtvpn0 to dhtvpn15 are all taken: choose a name with --interface")


@contextmanager
def _locked(config: NodeConfig) -> Iterator[None]:
    """One node per network and state directory: the kernel drops the lock when the process dies."""
    path: Path = config.network_directory / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SystemRefusedError(f"cannot write {path} ({error.strerror})") from error
    try:
        _take_lock(descriptor, config)
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, config: NodeConfig) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        raise SystemRefusedError(
            f"this machine is already in {config.network} (process {holder}): "
            f"`dhtvpn status --network {config.network}` shows it, `dhtvpn leave` ends it"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())


@contextmanager
def _stop_on_signal(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _serving(node: Node, path: Path) -> AsyncIterator[None]:
    server = ControlServer(LocalApi(node), path)
    await server.start()
    try:
        yield
    finally:
        await server.close()
