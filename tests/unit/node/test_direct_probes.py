"""A relayed peer is probed for a direct path while there is traffic, and left alone without."""

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import IPv6Address
from typing import Any

import pytest
from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Occasion, Peer
from dhtvpn.mesh.relayed import relayed
from dhtvpn.nat.probe_allowance import ProbeAllowance
from dhtvpn.node import direct_probes as module
from dhtvpn.node.direct_probes import DirectProbes

RELAY = relayed(1, 1)
PLACES = [Endpoint(f"198.18.{number}.2", 4690) for number in range(1, 7)]
REPORT_S = 0.25


class World:
    """One relayed peer. What is sent to it costs; a direct path works from ``works_from`` on."""

    def __init__(self) -> None:
        self.peer = Peer(
            bytes(32), bytes(32), "peer", "peer", None, IPv6Address("fd00::1"), 1, endpoint=RELAY
        )
        self.peer.move(Occasion.SESSION_UP)
        self.works_from = float("inf")
        self.probed: list[tuple[float, Endpoint]] = []
        paths: Any = self
        self.probes = DirectProbes(places=lambda _: PLACES, paths=paths, allowance=ProbeAllowance())

    async def try_directly(self, peer: Peer, endpoints: list[Endpoint], deadline_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        self.probed += [(now, endpoint) for endpoint in endpoints]
        peer.tx_bytes += 48 * len(endpoints)
        if now < self.works_from:
            await asyncio.sleep(deadline_s)
            return False
        peer.endpoint = endpoints[0]
        return True

    async def traffic(self, octets_per_s: float, seconds: float) -> None:
        """As the engine reports it."""
        for _ in range(int(seconds / REPORT_S)):
            self.peer.tx_bytes += int(octets_per_s * REPORT_S / 2)
            self.peer.heard_bytes += int(octets_per_s * REPORT_S / 2)
            self.probes.packets_moved(self.peer)
            await asyncio.sleep(REPORT_S)

    async def late_path_found_after(self, octets_per_s: float, relayed_s: float) -> float:
        await self.traffic(octets_per_s, relayed_s)
        began = self.works_from = asyncio.get_running_loop().time()
        while self.peer.relayed:
            await self.traffic(octets_per_s, REPORT_S)
            assert asyncio.get_running_loop().time() < began + 60
        return self.probed[-1][0] - began


def scenario(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    def wrapped(*arguments: Any) -> None:
        run(test(*arguments))

    wrapped.__name__ = test.__name__
    return wrapped


@pytest.mark.parametrize("relayed_s", [0, 7, 14, 25, 3000])
@pytest.mark.parametrize("octets_per_s", [256, 1_000_000])
def test_a_path_that_comes_up_late_is_found_while_there_is_traffic(octets_per_s: int, relayed_s: int) -> None:
    """256 octets a second are one ``ping`` each second."""

    async def play() -> float:
        world = World()
        found_s = await world.late_path_found_after(octets_per_s, relayed_s)
        await world.probes.close()
        return found_s

    assert run(play()) <= (module.PROBE_S if relayed_s else 3.0)


@scenario
async def test_nothing_is_sent_at_rest_and_soon_nothing_after_traffic() -> None:
    world = World()
    await world.traffic(50, 600)
    assert not world.probed
    await world.traffic(10_000, 10)
    assert world.probed
    ended = asyncio.get_running_loop().time()
    await world.traffic(50, 600)
    last = world.probed[-1][0]
    assert ended < last <= ended + 2 * module.LASTING_S
    await world.probes.close()


@scenario
async def test_what_is_sent_is_little_and_to_the_best_places() -> None:
    world = World()
    await world.traffic(1_000_000, 60)
    assert {endpoint for _, endpoint in world.probed} == set(PLACES[: module.PLACES])
    assert len(world.probed) <= module.PLACES * (60 / module.PROBE_S + 1)
    await world.probes.close()


@scenario
async def test_somebody_who_waits_counts_as_traffic_for_a_while() -> None:
    world = World()
    world.probes.wanted(world.peer)
    await asyncio.sleep(60)
    times = sorted({moment for moment, _ in world.probed})
    assert 0.5 * module.LASTING_S <= times[-1] - times[0] <= 2 * module.LASTING_S
    await world.probes.close()


@scenario
async def test_a_direct_peer_and_one_that_is_gone_are_not_probed() -> None:
    world = World()
    await world.traffic(10_000, 5)
    world.probes.forget(world.peer)
    await asyncio.sleep(0)
    before = len(world.probed)
    world.peer.endpoint = PLACES[0]
    await world.traffic(10_000, 10)
    world.probes.wanted(world.peer)
    await asyncio.sleep(10)
    assert len(world.probed) == before
    await world.probes.close()
