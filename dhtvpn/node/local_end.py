"""This machine's end of the tunnels: the TUN device, the overlay addresses on it, and the engine process.

The device and the port's sockets belong to this process, which keeps them open; the engine works on
duplicates. So an engine that dies is started again on the same device, addresses and routes in place.
"""

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Protocol

from dhtvpn.dataplane import messages as engine_events
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.errors import SystemRefusedError
from dhtvpn.membership.addresses import ipv4_network, ipv6_network
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.mesh.path_mtu import DEFAULT_MTU
from dhtvpn.nat.port import UdpPort
from dhtvpn.system import links
from dhtvpn.system.tun import Tun, open_tun

log = logging.getLogger(__name__)

ENGINE_RETRY_S = 5.0
INTERFACE_NAMES = 16
"""Names tried, from dhtvpn0 on, where the user gave none."""


class EngineListener(Protocol):
    """Who is told what the engine reports, and when there is a new one."""

    def engine_event(self, event: engine_events.Event) -> None: ...

    def engine_replaced(self, engine: EngineProcess) -> None: ...


class LocalEnd:
    """Made by :meth:`open`; :meth:`close` leaves nothing behind."""

    def __init__(
        self, tun: Tun, port: UdpPort, network_id: NetworkId, ipv4: IPv4Address, ipv6: IPv6Address
    ) -> None:
        self._tun = tun
        self._port = port
        self._network_id = network_id
        self._ipv4 = ipv4
        self._ipv6 = ipv6
        self._restart: asyncio.Task[None] | None = None
        self.listener: EngineListener | None = None
        self.engine: EngineProcess

    @classmethod
    async def open(
        cls,
        interface: str | None,
        *,
        port: UdpPort,
        network_id: NetworkId,
        ipv4: IPv4Address,
        ipv6: IPv6Address,
        say: Callable[[str, str], None],
    ) -> "LocalEnd":
        """Make the device (``interface`` None: the first free name), address it, start the engine.

        Raises SystemRefusedError: no privilege, no device, name taken, addresses refused.
        """
        tun = _open_interface(interface)
        end = cls(tun, port, network_id, ipv4, ipv6)
        try:
            addresses: list[links.Interface] = [end._on_link(ipv4)]
            if links.has_ipv6():
                addresses.append(IPv6Interface((ipv6, ipv6_network(network_id).prefixlen)))
            else:
                say("warning", "this machine has no IPv6: peers reach it by its IPv4 address only")
            await links.configure(tun.name, addresses, DEFAULT_MTU)
            await end._start_engine()
        except BaseException:
            tun.close()
            raise
        return end

    @property
    def interface(self) -> str:
        return self._tun.name

    async def move(self, address: IPv4Address) -> None:
        """Give up the present IPv4 address for ``address``. Raises SystemRefusedError."""
        held, self._ipv4 = self._ipv4, address
        # In this order: the kernel makes a second address of one subnet depend on the first.
        await links.remove_address(self._tun.name, self._on_link(held))
        await links.add_address(self._tun.name, self._on_link(address))
        self.engine.configure([address, self._ipv6], DEFAULT_MTU)

    async def close(self) -> None:
        """End the engine, then the device: its addresses and routes go with it."""
        self.listener = None
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        await self.engine.close()
        self._tun.close()

    def _on_link(self, address: IPv4Address) -> IPv4Interface:
        return IPv4Interface((address, ipv4_network(self._network_id).prefixlen))

    async def _start_engine(self) -> None:
        self.engine = await EngineProcess.start(
            self._tun.fd,
            self._port.engine_sockets,
            [self._ipv4, self._ipv6],
            DEFAULT_MTU,
            self._engine_event,
            self._engine_died,
            receive=self._port.kernel_demux,
        )
        self._port.on_data(self.engine.datagram)

    def _engine_event(self, event: engine_events.Event) -> None:
        if self.listener is not None:
            self.listener.engine_event(event)

    def _engine_died(self, code: int) -> None:
        log.warning("the engine process ended with code %d", code)
        self._restart = asyncio.create_task(self._start_engine_again())

    async def _start_engine_again(self) -> None:
        """Until it runs. A crash at every start must not become a busy loop."""
        while True:
            try:
                await self._start_engine()
            except SystemRefusedError as error:
                log.error("%s; trying again in %.0f s", error, ENGINE_RETRY_S)
                await asyncio.sleep(ENGINE_RETRY_S)
                continue
            if self.listener is not None:
                self.listener.engine_replaced(self.engine)
            return


def _open_interface(wanted: str | None) -> Tun:
    if wanted is not None:
        return open_tun(wanted)
    for number in range(INTERFACE_NAMES):
        name = f"dhtvpn{number}"
        if not links.interface_exists(name):
            return open_tun(name)
    raise SystemRefusedError("dhtvpn0 to dhtvpn15 are all taken: choose a name with --interface")
