"""Does all of netcheck's questions at once, each with its own deadline, within a few seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeVar

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.nat.path_size import path_mtu
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_service import StunService
from dhtvpn.netcheck import machine, outside
from dhtvpn.netcheck.contacts import Known
from dhtvpn.netcheck.directory import DirectoryProbe, Found
from dhtvpn.netcheck.names import resolve
from dhtvpn.netcheck.report import Directory, Family, Outside, Report, Router, RunningNode
from dhtvpn.netcheck.routers import ask_routers
from dhtvpn.node.bootstrap import MAX_FIRST

RESOLVE_S: Final = 1.5
"""For the names given: a resolver that is gone may not eat up the time for everything else."""
OUTSIDE_S: Final = 5.0
DIRECTORY_S: Final = 4.5
"""After these a question counts as unanswered. They run beside each other; mostly all is over in two."""
LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}

T = TypeVar("T")


@dataclass(frozen=True)
class NetcheckConfig:
    """``networks``: those known here. ``port``: the UDP port to use if it is free, None: any.
    ``port_mapping``: ask routers."""

    known: Known
    networks: tuple[tuple[str, NetworkId], ...] = ()
    running: tuple[RunningNode, ...] = ()
    port: int | None = None
    port_mapping: bool = True

    @property
    def own_interfaces(self) -> tuple[str, ...]:
        """Overlay interfaces, over which nothing is asked."""
        return tuple(node.interface for node in self.running if node.interface is not None)


async def run_netcheck(config: NetcheckConfig, progress: Callable[[str], None]) -> Report:
    """Find everything out. ``progress`` gets a few words whenever something is done.

    Raises SystemRefusedError where this machine does not even give a socket. When it is cancelled, what was
    asked of routers is given back first.
    """
    began = time.monotonic()
    drops = Drops()
    async with AsyncExitStack() as stack:
        port = await _open_port(config.port, drops)
        stack.callback(port.close)
        StunService(port)
        here, resolved = await asyncio.gather(
            machine.look(config.networks, config.own_interfaces),
            resolve(config.known.names, port.families, RESOLVE_S),
        )
        progress("this machine")
        named = [endpoint for name in config.known.names for endpoint in resolved[name]]
        families = {family for family, addresses in here.addresses.items() if addresses}
        everybody = _askable([*named, *config.known.remembered], families)
        probe = DirectoryProbe(port, drops)
        stack.push_async_callback(probe.close)
        ipv4, ipv6, in_dht, routers = await asyncio.gather(
            _told(_outside(port, 4, everybody, here, probe), "IPv4", progress),
            _told(_outside(port, 6, everybody, here, probe), "IPv6", progress),
            _told(_directory(probe, everybody), "DHT", progress),
            _told(_routers(config, drops), "router", progress),
        )
        return Report(
            ipv4=Family(here.addresses[4], 4 in here.default_routes, ipv4),
            ipv6=Family(here.addresses[6], 6 in here.default_routes, ipv6),
            port=port.port,
            wanted_port=config.port if config.port not in (None, port.port) else None,
            unresolved=tuple(name for name in config.known.names if not resolved[name]),
            routers=routers,
            directory=in_dht.directory,
            clock_offset_s=in_dht.clock_offset_s,
            machine=here.machine,
            running=config.running,
            took_s=round(time.monotonic() - began, 2),
        )


async def _open_port(wanted: int | None, drops: Drops) -> UdpPort:
    """The wanted one, or any where that is taken."""
    if wanted is not None:
        try:
            return await UdpPort.open(wanted, drops=drops, tunnel_sockets=False)
        except SystemRefusedError:
            pass
    return await UdpPort.open(None, drops=drops, tunnel_sockets=False)


async def _second_port() -> UdpPort:
    """Answers Binding requests, as the first does."""
    port = await UdpPort.open(None, drops=Drops(), tunnel_sockets=False)
    StunService(port)
    return port


def _askable(endpoints: Sequence[Endpoint], families: Collection[int]) -> list[Endpoint]:
    """Those that this machine has an address for; its own loopback always."""
    return [
        endpoint
        for endpoint in dict.fromkeys(endpoints)
        if _family(endpoint) in families or ip_address(endpoint.host).is_loopback
    ][:MAX_FIRST]


def _family(endpoint: Endpoint) -> int:
    return 6 if endpoint.is_ipv6 else 4


async def _outside(
    port: UdpPort, family: int, servers: Sequence[Endpoint], here: machine.Facts, probe: DirectoryProbe
) -> Outside:
    def mine(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        return [endpoint for endpoint in endpoints if _family(endpoint) == family]

    async def more() -> Sequence[Endpoint]:
        return mine(await probe.contacts())

    chosen = mine(servers)
    if not chosen or family not in port.families:
        return Outside()
    try:
        async with asyncio.timeout(OUTSIDE_S):
            return await outside.look(
                port,
                chosen,
                hosts=(*here.addresses[family], LOOPBACK[family]),
                more=more,
                second_port=_second_port,
                measure_size=path_mtu,
            )
    except TimeoutError:
        return Outside(asked=len({endpoint.host for endpoint in chosen}))


async def _directory(probe: DirectoryProbe, known: Sequence[Endpoint]) -> Found:
    try:
        async with asyncio.timeout(DIRECTORY_S):
            return await probe.run(known)
    except TimeoutError:
        return Found(Directory(known=len(known)), (), None)


async def _routers(config: NetcheckConfig, drops: Drops) -> tuple[Router, ...] | None:
    return await ask_routers(config.own_interfaces, drops) if config.port_mapping else None


async def _told(work: Awaitable[T], what: str, progress: Callable[[str], None]) -> T:
    result = await work
    progress(what)
    return result
