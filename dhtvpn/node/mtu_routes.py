"""Tells the local network stack what the paths take: the interface's MTU, and a route for each peer that
has another one.

The interface has the largest MTU of any path, so that a jumbo path can be used; no less than the default.
Without these routes everything works too, by the engine's ICMP answers; with them nobody has to learn.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Protocol

from dhtvpn.errors import SystemRefusedError
from dhtvpn.mesh.path_mtu import DEFAULT_MTU
from dhtvpn.mesh.peers import Peer

log = logging.getLogger(__name__)

PAUSE_S, PAUSE_PER_PEER_S = 0.5, 0.05
"""From one change of the routes to the next, so that dozens of paths that come up together make few. Ours."""

Network = IPv4Network | IPv6Network


class SetMtus(Protocol):
    """``system.routes.set_mtus`` on the interface."""

    def __call__(
        self, mtu: int, routes: Mapping[Network, int], obsolete: Collection[Network]
    ) -> Coroutine[Any, Any, None]: ...


class MtuRoutes:
    """Follows the peer table: call :meth:`refresh` when an address or a path MTU in it may have changed."""

    def __init__(self, set_mtus: SetMtus, peers: Callable[[], Collection[Peer]]) -> None:
        self._set_mtus = set_mtus
        self._peers = peers
        self._mtu = DEFAULT_MTU
        self._installed: dict[Network, int] = {}
        self._wanted_again = False
        self._work: asyncio.Task[None] | None = None

    def refresh(self) -> None:
        """Bring interface and routes up to date: at once, or with whatever else comes in PAUSE_S since the
        last change."""
        self._wanted_again = True
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._follow(), name="MTU routes")

    def routes_lost(self) -> None:
        """The kernel has removed our routes, as it does when an address is taken from the interface."""
        self._installed = {}
        self.refresh()

    async def close(self) -> None:
        """Stop. The routes go with the interface."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _follow(self) -> None:
        while self._wanted_again:
            self._wanted_again = False
            mtu, routes = self._wanted()
            if mtu != self._mtu:  # the kernel changes IPv6 routes when the interface's MTU changes
                changed = dict(routes)
            else:
                changed = {net: size for net, size in routes.items() if self._installed.get(net) != size}
            obsolete = self._installed.keys() - routes.keys()
            if not changed and not obsolete and mtu == self._mtu:
                continue
            self._mtu, self._installed = mtu, routes
            try:
                await self._set_mtus(mtu, changed, obsolete)
            except SystemRefusedError as error:
                log.warning("%s: programs learn of it by ICMP instead", error)
            await asyncio.sleep(PAUSE_S + PAUSE_PER_PEER_S * len(self._peers()))

    def _wanted(self) -> tuple[int, dict[Network, int]]:
        """The interface's MTU, and the routes. One that was made stays as long as its peer: an address that
        fell back on the subnet's route could find an older, smaller MTU cached there."""
        peers = self._peers()
        mtu = max([DEFAULT_MTU, *(peer.mtu for peer in peers if peer.mtu is not None)])
        routes: dict[Network, int] = {}
        for peer in peers:
            own = DEFAULT_MTU if peer.mtu is None else peer.mtu
            for network in peer.allowed_ips:
                if own != mtu or network in self._installed:
                    routes[network] = own
        return mtu, routes
