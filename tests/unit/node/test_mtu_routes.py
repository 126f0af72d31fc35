"""Which MTU the interface gets and which peer gets a route, as path MTUs come and go."""

import asyncio
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from virtual_time import run

from dhtvpn.errors import SystemRefusedError
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.node.mtu_routes import PAUSE_S, MtuRoutes, Network


class Kernel:
    """The interface as the calls leave it; two peers."""

    def __init__(self) -> None:
        self.mtu, self.routes, self.calls = 1420, dict[Network, int](), 0
        self.refuses = False
        self.table = PeerTable()
        self.one, self.other = self._peer(1), self._peer(2)
        self.following = MtuRoutes(self._set_mtus, self.table.all)

    def _peer(self, number: int) -> Peer:
        peer = self.table.add(
            tunnel_key=bytes([number]) * 32,
            node_key=bytes(32),
            id=f"peer{number}",
            name=f"peer{number}",
            ipv4=IPv4Address(f"10.7.0.{number}"),
            ipv6=IPv6Address(f"fd00::{number}"),
        )
        assert peer is not None
        return peer

    async def _set_mtus(self, mtu: int, routes: Mapping[Network, int], obsolete: Collection[Network]) -> None:
        self.calls += 1
        await asyncio.sleep(0.01)
        if self.refuses:
            raise SystemRefusedError("no")
        self.mtu = mtu
        for network in obsolete:
            del self.routes[network]
        self.routes.update(routes)

    async def follow(self) -> dict[str, int]:
        self.following.refresh()
        await asyncio.sleep(2 * PAUSE_S)
        return {str(network): mtu for network, mtu in self.routes.items()}


def scenario(test: Any) -> Any:
    def wrapped() -> None:
        async def with_kernel() -> None:
            kernel = Kernel()
            await test(kernel)
            await kernel.following.close()

        run(with_kernel())

    wrapped.__name__ = test.__name__
    return wrapped


@scenario
async def test_nothing_is_done_while_nothing_is_known(kernel: Kernel) -> None:
    assert await kernel.follow() == {} and kernel.calls == 0


@scenario
async def test_the_interface_follows_the_widest_path_and_routes_the_others(kernel: Kernel) -> None:
    kernel.one.mtu = 8940
    assert await kernel.follow() == {"10.7.0.2/32": 1420, "fd00::2/128": 1420}
    assert kernel.mtu == 8940
    kernel.other.mtu = 1220
    assert await kernel.follow() == {"10.7.0.2/32": 1220, "fd00::2/128": 1220}
    kernel.one.mtu = None
    assert (await kernel.follow())["10.7.0.2/32"] == 1220 and kernel.mtu == 1420


@scenario
async def test_a_route_stays_with_its_peer_and_goes_with_it(kernel: Kernel) -> None:
    kernel.one.mtu = 1220
    await kernel.follow()
    kernel.one.mtu = 1420
    assert await kernel.follow() == {"10.7.0.1/32": 1420, "fd00::1/128": 1420}
    kernel.one.ipv4 = IPv4Address("10.7.0.9")  # it has moved
    kernel.one.mtu = 1220
    assert await kernel.follow() == {"10.7.0.9/32": 1220, "fd00::1/128": 1220}
    kernel.table.remove(kernel.one)
    assert await kernel.follow() == {}


@scenario
async def test_changes_that_come_together_are_one_call(kernel: Kernel) -> None:
    for mtu in range(1300, 1400):
        kernel.one.mtu = mtu
        kernel.following.refresh()
    await asyncio.sleep(0.1)
    assert kernel.routes[ip_network("10.7.0.1/32")] == 1399 and kernel.calls == 1


@scenario
async def test_routes_that_the_kernel_took_away_come_back(kernel: Kernel) -> None:
    kernel.one.mtu = 1220
    await kernel.follow()
    kernel.routes.clear()
    kernel.following.routes_lost()
    assert len(await kernel.follow()) == 2


@scenario
async def test_a_kernel_that_refuses_is_no_disaster(kernel: Kernel) -> None:
    kernel.refuses = True
    kernel.one.mtu = 1220
    assert await kernel.follow() == {}
    kernel.refuses = False
    kernel.one.mtu = 1340
    assert await kernel.follow() == {"10.7.0.1/32": 1340, "fd00::1/128": 1340}


@scenario
async def test_paths_that_come_up_together_make_few_changes(kernel: Kernel) -> None:
    for step in range(60):
        kernel.one.mtu = 1200 + step
        kernel.following.refresh()
        await asyncio.sleep(0.02)
    assert (await kernel.follow())["10.7.0.1/32"] == 1259
    assert kernel.calls <= 2 + 60 * 0.02 / PAUSE_S
