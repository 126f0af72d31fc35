"""The composition root: builds one node from its configuration, owns every descriptor, and cleans up.

Order of building: lock, keys, port, TUN device, engine, node, local API; then privileges are given up, and
only then is the first datagram read. Everything is released in the
reverse order, whatever way the node ends; what a ``kill -9`` leaves to the kernel (TUN device, addresses,
routes, sockets, engine) goes with the last descriptor.
"""

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dhtvpn import files
from dhtvpn import identity as identities
from dhtvpn.choices import Discovery
from dhtvpn.confinement import kernel, landlock
from dhtvpn.confinement.account import take_over
from dhtvpn.confinement.places import readable
from dhtvpn.confinement.process import Confinement, confine
from dhtvpn.drops import Drops
from dhtvpn.errors import DamagedStateError, SystemRefusedError
from dhtvpn.membership.addresses import ipv4_network, ipv6_address, ipv6_network
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_service import StunService
from dhtvpn.node.claim import OwnClaim
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.events import Events
from dhtvpn.node.local_end import LocalEnd
from dhtvpn.system import links
from dhtvpn.system.processor_time import ProcessorTime

if TYPE_CHECKING:
    from dhtvpn import assembly

__all__ = ["NodeConfig", "run_node"]

log = logging.getLogger(__name__)


async def run_node(config: NodeConfig, report: Callable[[str, str], None], ready: Callable[[], None]) -> None:
    """Run a node until SIGINT, SIGTERM or a ``leave`` through the local API.

    ``report`` gets (kind, text) for a person to follow; ``ready`` is called once the interface is up and
    the local API answers. Raises SystemRefusedError and DamagedStateError, each with one clear sentence.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(_locked(config))
        node = await _build(config, stack, report)
        from dhtvpn.assembly import serving  # noqa: PLC0415 - there since the node was built

        with _stop_on_signal(node.stop_requested):
            await stack.enter_async_context(serving(node, config.socket_path))
            node.confinement = _confine(config)
            node.port.start_reading()
            who = f"{config.network}: this is {config.hostname}, {node.claim.address} and {node.ipv6}"
            node.events.say("start", who)
            ready()
            try:
                await node.run()
            finally:
                node.events.say("stop", "leaving")
                await node.depart()
            if node.failure is not None:
                raise node.failure


async def _build(
    config: NodeConfig, stack: AsyncExitStack, report: Callable[[str, str], None]
) -> "assembly.Node":
    drops, events, random_bytes = Drops(), Events(report), os.urandom
    directory_path, network_id = config.network_directory, config.network_id
    identity = identities.load_or_create(directory_path / "identity.json", random_bytes)
    claim = OwnClaim(directory_path / "claim.json", network_id, identity.node_key, time.time())
    await _refuse_collision(config)
    port = await _open_port(config, drops)
    stack.callback(port.close)
    StunService(port)
    opening = asyncio.create_task(
        LocalEnd.open(
            config.interface,
            port=port,
            network_id=network_id,
            ipv4=claim.address,
            ipv6=ipv6_address(network_id, identity.node_key),
            cipher=config.cipher,
            say=events.say,
        )
    )
    await asyncio.sleep(0)  # the engine's process starts, which takes as long as importing the rest
    from dhtvpn import assembly  # noqa: PLC0415

    local_end = await opening
    stack.push_async_callback(local_end.close)
    processor_time = ProcessorTime()
    stack.callback(processor_time.close)
    node = await assembly.put_together(
        config,
        stack,
        identity=identity,
        claim=claim,
        port=port,
        local_end=local_end,
        events=events,
        drops=drops,
        random_bytes=random_bytes,
        wanted_to_run=processor_time.wanted,
    )
    stack.push_async_callback(node.close)
    return node


async def _open_port(config: NodeConfig, drops: Drops) -> UdpPort:
    """The port that the user asked for, else the one of the last run: peers' NATs still have a mapping
    towards it, and peers remember it. Raises SystemRefusedError."""
    if config.port is not None:
        return await UdpPort.open(config.port, drops=drops, tunnel_sockets=True, reading=False)
    path = config.network_directory / "port.json"
    port = await _reopen_port(path, drops)
    if port is None:
        port = await UdpPort.open(None, drops=drops, tunnel_sockets=True, reading=False)
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
        return await UdpPort.open(int(stored["port"]), drops=drops, tunnel_sockets=True, reading=False)
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


def _confine(config: NodeConfig) -> Confinement:
    """Give up root and every capability but the one for addresses and routes; keep two directories.

    The engine is up, and so is the process that others are forked from: no program is run any more.
    """
    own, run = config.network_directory, config.socket_path.parent
    try:
        who = take_over([own, run])
    except OSError as error:
        log.warning("cannot hand over %s (%s): going on as root", own, error.strerror)
        who = None
    places = [
        *readable(as_root=who is None and os.geteuid() == 0),
        (own, landlock.KEEP),
        (run, landlock.READ_DIR | landlock.REMOVE_FILE),
    ]
    # libtorrent binds a free TCP port before it binds UDP, and ends if it cannot; we close it again.
    tcp_ports = (0,) if Discovery.MAINLINE in config.discovery else ()
    return confine(who, (kernel.CAP_NET_ADMIN,), places, tcp_ports=tcp_ports)


@contextmanager
def _locked(config: NodeConfig) -> Iterator[None]:
    """One node per network and state directory: the kernel drops the lock when the process dies."""
    path: Path = config.network_directory / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
