"""All of a node's mappings: gateways that come and go, what a person is told, and leaving."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, ip_address

import pytest
from fake_gateway import GATEWAY, GATEWAY6, PORT, FakeGateway, silent
from virtual_time import run

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat.port_mapping.epoch import Epoch
from dhtvpn.nat.port_mapping.external import contradicted, is_public
from dhtvpn.nat.port_mapping.mapper import LOOK_S, RELEASE_S, PortMapper
from dhtvpn.nat.port_mapping.pcp import Pcp
from dhtvpn.nat.port_mapping.terms import Gateway, Method

OTHER = Gateway(IPv4Address("10.5.5.1"), 3, IPv4Address("10.5.5.7"))
EXTERNAL = Endpoint("198.18.0.1", PORT)


class Listener:
    closed = False

    def close(self) -> None:
        self.closed = True


class World:
    """A mapper, and as many gateways as ``there``; each is a router of its own."""

    def __init__(self) -> None:
        self.there: list[Gateway] = [GATEWAY]
        self.routers = {gateway: FakeGateway() for gateway in (GATEWAY, GATEWAY6, OTHER)}
        self.refused = False
        self.said: list[str] = []
        self.changes = 0
        self.listeners: list[Listener] = []
        self.drops = Drops()
        self.mapper = PortMapper(
            gateways=self._gateways,
            methods=self._methods,
            listen=self._listen,
            fraction=lambda: 0.0,
            say=lambda kind, text: self.said.append(text),
        )
        self.seen: list[Endpoint] = []
        self.mapper.attach(self._changed, lambda: self.seen)
        self.task = asyncio.create_task(self.mapper.run())

    async def _gateways(self) -> Sequence[Gateway]:
        if self.refused:
            raise SystemRefusedError("cannot read this machine's network settings")
        return self.there

    def _methods(self, gateway: Gateway) -> list[Method]:
        router, now = self.routers[gateway], asyncio.get_running_loop().time
        channel = router.port_channel("pcp")
        return [Pcp(gateway, PORT, channel, nonce=bytes(12), drops=self.drops, now=now)]

    def _listen(self, heard: Callable[[bytes, str], None]) -> Listener:
        self.heard = heard
        self.listeners.append(Listener())
        return self.listeners[-1]

    def _changed(self) -> None:
        self.changes += 1

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.mapper.release()


def in_world(test: Callable[[World], Awaitable[None]]) -> None:
    async def scenario() -> None:
        world = World()
        await test(world)
        await world.stop()
        assert all(router.open_sockets == 0 for router in world.routers.values())
        assert all(listener.closed for listener in world.listeners)

    run(scenario())


def test_a_mapping_is_told_once_and_given_back() -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(3600)
        assert world.mapper.endpoints == (EXTERNAL,)
        assert world.said == [f"the router forwards {EXTERNAL} to this node (pcp)"]
        assert world.changes == 1 and len(world.listeners) == 1
        (condition,) = world.mapper.conditions()
        assert (condition.protocol, condition.external, condition.detail) == ("pcp", EXTERNAL, "")
        await world.stop()
        assert world.routers[GATEWAY].mappings == {}
        assert world.mapper.endpoints == ()

    in_world(scenario)


def test_a_pinhole_is_told_but_is_no_new_endpoint() -> None:
    async def scenario(world: World) -> None:
        world.there = [GATEWAY6]
        await asyncio.sleep(1)
        assert world.mapper.endpoints == ()
        assert world.said == [f"the router lets in what is sent to [2001:db8::10]:{PORT} (pcp)"]
        (condition,) = world.mapper.conditions()
        assert condition.protocol == "pcp"

    in_world(scenario)


def test_another_router_after_a_change_of_network() -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(1)
        world.there = [OTHER]
        world.routers[OTHER].external = "198.18.0.2"
        world.mapper.look_again()
        await asyncio.sleep(1)
        assert world.mapper.endpoints == (Endpoint("198.18.0.2", PORT),)
        assert world.routers[GATEWAY].open_sockets == 0
        world.there = []
        await asyncio.sleep(LOOK_S + 1)
        assert world.mapper.endpoints == ()
        assert world.mapper.detail == "behind no router that translates"
        world.refused = True
        await asyncio.sleep(LOOK_S + 1)
        assert world.mapper.detail.startswith("cannot read")

    in_world(scenario)


def test_another_public_address_has_the_routers_asked_again() -> None:
    async def scenario(world: World) -> None:
        world.seen = [EXTERNAL]
        await asyncio.sleep(5)
        before = len(world.routers[GATEWAY].requests)
        world.seen = [EXTERNAL._replace(port=1)]
        await asyncio.sleep(LOOK_S)
        world.seen = []
        await asyncio.sleep(LOOK_S)
        assert len(world.routers[GATEWAY].requests) == before
        world.seen = [Endpoint("198.18.0.2", 1)]
        world.routers[GATEWAY].external = "198.18.0.2"
        await asyncio.sleep(LOOK_S)
        assert world.mapper.endpoints == (Endpoint("198.18.0.2", PORT),)

    in_world(scenario)


def test_announcements_count_only_from_the_gateway() -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(60)
        router = world.routers[GATEWAY]
        router.reboot()
        world.heard(router.pcp_header(0, 0, 0), "192.168.1.77")
        await asyncio.sleep(10)
        assert router.mappings == {}
        world.heard(router.pcp_header(0, 0, 0), str(GATEWAY.address))
        await asyncio.sleep(1)
        assert list(router.mappings) == [PORT]

    in_world(scenario)


def test_double_nat_is_said_once_and_silence_not_at_all() -> None:
    async def scenario(world: World) -> None:
        world.there = [GATEWAY, OTHER]
        world.routers[GATEWAY].external = "100.64.1.2"
        world.routers[OTHER].pcp = silent
        await asyncio.sleep(5400)
        assert world.said == [
            "no port mapping: the gateway's own address 100.64.1.2 is not a public one: "
            "there is another NAT in front of it"
        ]

    in_world(scenario)


def test_leaving_waits_for_a_silent_router_no_longer_than_a_second() -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(1)
        world.routers[GATEWAY].pcp = silent
        began = asyncio.get_running_loop().time()
        await world.stop()
        assert asyncio.get_running_loop().time() - began <= RELEASE_S

    in_world(scenario)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("198.18.0.1", True),
        ("8.8.8.8", True),
        ("100.63.9.9", True),
        ("100.64.0.1", False),
        ("172.31.0.1", False),
        ("172.32.0.1", True),
        ("255.255.255.255", False),
        ("2001:db8::1", True),
        ("fd00::1", False),
        ("::1", False),
    ],
)
def test_which_addresses_may_be_published(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


def test_an_external_address_is_compared_with_what_strangers_see() -> None:
    lie = Endpoint("192.0.2.66", 4690)
    assert not contradicted(lie, [])
    assert not contradicted(lie, [Endpoint("192.168.1.10", 9), Endpoint("2001:db8::5", 9)])
    assert contradicted(lie, [Endpoint("198.18.0.1", 9)])
    assert not contradicted(lie, [Endpoint("198.18.0.1", 9), Endpoint("192.0.2.66", 9)])


@pytest.mark.parametrize("pcp", [True, False])
@pytest.mark.parametrize(
    ("epoch_s", "later_s", "lost"),
    [
        (1100, 100, False),
        (1098, 100, False),
        (1003, 100, True),
        (0, 100, True),
        (5, 1, True),
        (1000, 0, False),
    ],
)
def test_epochs(pcp: bool, epoch_s: int, later_s: float, lost: bool) -> None:
    """RFC 6887 section 8.5, RFC 6886 section 3.6."""
    epoch = Epoch(pcp=pcp)
    assert not epoch.lost_state(1000, 50.0)
    assert epoch.lost_state(epoch_s, 50.0 + later_s) is lost


def test_only_pcp_distrusts_a_clock_that_runs_ahead() -> None:
    assert Epoch(pcp=True).lost_state(1, 0.0) is False
    for pcp in (True, False):
        epoch = Epoch(pcp=pcp)
        epoch.lost_state(1000, 50.0)
        assert epoch.lost_state(5000, 60.0) is pcp
