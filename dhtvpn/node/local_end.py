"""This machine's end of the tunnels: the TUN device, the overlay addresses on it, and the engine process.

The device and the port's sockets belong to this process, which keeps them open; the engine works on
duplicates. So an engine that dies is started again on the same device, addresses and routes in place.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Protocol

from dhtvpn.dataplane import messages as engine_events
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.dataplane.sockets import super_packet_payload
from dhtvpn.dataplane.starter import EngineStarter
from dhtvpn.errors import SystemRefusedError
from dhtvpn.membership.addresses import ipv4_network, ipv6_network
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.mesh import frames
from dhtvpn.mesh.path_mtu import DEFAULT_MTU
from dhtvpn.nat.port import UdpPort
from dhtvpn.networks import Cipher
from dhtvpn.system import links
from dhtvpn.system.routes import set_mtus
from dhtvpn.system.tun import Tun, open_tun

log = logging.getLogger(__name__)

STEADY_S = 10.0
"""An engine that has run for so long is replaced at once when it ends, one that ends sooner after a pause."""
RESTART_PAUSES_S = (0.0, 0.5, 2.0, 5.0, 15.0, 30.0)
"""Pauses before the first, second, ... new engine in a row; the last one repeats."""
INTERFACE_NAMES = 16
"""Names tried, from dhtvpn0 on, where the user gave none."""


class EngineListener(Protocol):
    """Who is told what the engine reports, and when there is a new one."""

    def engine_event(self, event: engine_events.Event) -> None: ...

    def engine_ended(self, code: int, pause_s: float) -> None: ...

    def engine_replaced(self, engine: EngineProcess) -> None: ...

    def engine_lost(self, error: SystemRefusedError) -> None: ...


class LocalEnd:
    """Made by :meth:`open`; :meth:`close` leaves nothing behind."""

    def __init__(
        self,
        *,
        tun: Tun,
        port: UdpPort,
        starter: EngineStarter,
        network_id: NetworkId,
        ipv4: IPv4Address,
        ipv6: IPv6Address,
        cipher: Cipher,
    ) -> None:
        self._tun = tun
        self._port = port
        self._network_id = network_id
        self._ipv4 = ipv4
        self._ipv6 = ipv6
        self._starter = starter
        self._restart: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._ended_in_a_row = 0
        self._cipher = cipher
        self._mtu: int | None = None
        """Of the device, as far as we have set it."""
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
        cipher: Cipher,
        say: Callable[[str, str], None],
    ) -> "LocalEnd":
        """Make the device (``interface`` None: the first free name), address it, start the engine.

        Raises SystemRefusedError: no privilege, no device, name taken, addresses refused.
        """
        tun = _open_interface(interface)
        try:
            starter = EngineStarter(tun.fd, port.engine_sockets, receive=port.kernel_demux)
        except BaseException:
            tun.close()
            raise
        end = cls(
            tun=tun,
            port=port,
            starter=starter,
            network_id=network_id,
            ipv4=ipv4,
            ipv6=ipv6,
            cipher=cipher,
        )
        try:
            addresses: list[links.Interface] = [end._on_link(ipv4)]
            if links.has_ipv6():
                addresses.append(IPv6Interface((ipv6, ipv6_network(network_id).prefixlen)))
            else:
                say("warning", "this machine has no IPv6: peers reach it by its IPv4 address only")
            await links.configure(tun.name, addresses, DEFAULT_MTU)
            await links.limit_super_packets(tun.name, *super_packet_payload(DEFAULT_MTU))
            await end._start_engine()
        except BaseException:
            await starter.close()
            tun.close()
            raise
        return end

    @property
    def features(self) -> int:
        """What our Hello says that we take: the bits of mesh.frames."""
        features, offloads = 0, self.engine.offloads
        if "tso4" in offloads:
            features |= frames.FEATURE_TRAINS | frames.FEATURE_BLOCKS
        if "uso" in offloads:
            features |= frames.FEATURE_UDP_TRAINS
        if self._cipher is Cipher.AES or (self._cipher is Cipher.AUTO and "aes" in offloads):
            features |= frames.FEATURE_AES
        return features

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

    async def set_mtus(
        self, mtu: int, routes: Mapping[links.Network, int], obsolete: Collection[links.Network]
    ) -> None:
        """Give the device its MTU and super-packets that fit it, and ``routes`` to single peers theirs.

        Raises SystemRefusedError.
        """
        changed = mtu != self._mtu
        await set_mtus(self._tun.name, mtu if changed else None, routes, obsolete)
        self._mtu = mtu
        if changed:
            await links.limit_super_packets(self._tun.name, *super_packet_payload(mtu))

    async def close(self) -> None:
        """End the engine, then the device: its addresses and routes go with it."""
        self.listener = None
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        await self.engine.close()
        await self._starter.close()
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
            starter=self._starter,
        )
        self._started_at = asyncio.get_running_loop().time()
        self._port.on_data(self.engine.datagram)

    def _engine_event(self, event: engine_events.Event) -> None:
        if self.listener is not None:
            self.listener.engine_event(event)

    def _engine_died(self, code: int) -> None:
        if asyncio.get_running_loop().time() - self._started_at >= STEADY_S:
            self._ended_in_a_row = 0
        pause_s = RESTART_PAUSES_S[min(self._ended_in_a_row, len(RESTART_PAUSES_S) - 1)]
        self._ended_in_a_row += 1
        log.warning("the engine process ended with code %d; another one in %.1f s", code, pause_s)
        if self.listener is not None:
            self.listener.engine_ended(code, pause_s)
        self._restart = asyncio.create_task(self._start_engine_again(pause_s))

    async def _start_engine_again(self, pause_s: float) -> None:
        """Until it runs. A crash at every start must not become a busy loop."""
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._start_engine()
            except SystemRefusedError as error:
                if not self._starter.alive:
                    # It is what engines are forked from, and we have no privilege any more to start another.
                    if self.listener is not None:
                        self.listener.engine_lost(error)
                    return
                pause_s = RESTART_PAUSES_S[-1]
                log.error("%s; trying again in %.0f s", error, pause_s)
                continue
            if self.listener is not None:
                self.listener.engine_replaced(self.engine)
            return


def _open_interface(wanted: str | None) -> Tun:
    if wanted is not None:
        return _open(wanted)
    for number in range(INTERFACE_NAMES):
        name = f"dhtvpn{number}"
        if not links.interface_exists(name):
            return _open(name)
    raise SystemRefusedError("dhtvpn0 to dhtvpn15 are all taken: choose a name with --interface")


def _open(name: str) -> Tun:
    """With virtio headers, unless this kernel's devices have none."""
    try:
        return open_tun(name, vnet_header=True)
    except SystemRefusedError:
        return open_tun(name)
