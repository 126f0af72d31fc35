"""What netcheck finds out behind every simulated NAT is what the NAT does, and its verdict is the model's."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import virtual_time
from nat_in_memory import MemoryInternet, MemoryPort, Realm

from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.nat_behaviour import (
    CARRIER,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Allocation,
    Nat,
    can_be_direct,
)
from dhtvpn.lab.nat_behaviour import Filtering as NatFiltering
from dhtvpn.lab.nat_behaviour import Mapping as NatMapping
from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.nat.stun_service import StunService
from dhtvpn.netcheck import outside
from dhtvpn.netcheck.report import Family, Outside, Report
from dhtvpn.netcheck.verdict import Peer, Verdict, direct_with, verdict

SINGLE = [
    [Nat(mapping, filtering, Allocation.RANDOM, hairpinning=hairpinning)]
    for mapping, filtering, hairpinning in product(NatMapping, NatFiltering, [False, True])
]
CHAINS: list[list[Nat]] = [
    [],
    *SINGLE,
    [PORT_RESTRICTED, CARRIER],
    [SYMMETRIC, CARRIER],
    [OPEN_FILTERING, SYMMETRIC],
    [OPEN_FILTERING, CARRIER],
    [PORT_RESTRICTED, PORT_RESTRICTED],
]
PEERS = {
    Peer.PUBLIC: [],
    Peer.OPEN: [OPEN_FILTERING],
    Peer.PORT_RESTRICTED: [PORT_RESTRICTED],
    Peer.SYMMETRIC: [SYMMETRIC],
}


def shown(nats: Sequence[Nat]) -> str:
    return "+".join(f"{nat.short}{'-hairpin' if nat.hairpinning else ''}" for nat in nats) or "public"


async def no_size(server: Endpoint) -> int | None:
    return 1400


async def look(
    internet: MemoryInternet, realm: Realm, servers: Sequence[Endpoint], found: Sequence[Endpoint] = ()
) -> Outside:
    """As netcheck does, for a host in ``realm``."""

    def opened() -> MemoryPort:
        port = internet.port(realm)
        StunService(port)  # type: ignore[arg-type]
        return port

    async def second_port() -> MemoryPort:
        return opened()

    async def more() -> Sequence[Endpoint]:
        return found

    port = opened()
    return await outside.look(
        port,  # type: ignore[arg-type]
        servers,
        hosts=[port.endpoint.host],
        more=more,
        second_port=second_port,  # type: ignore[arg-type]
        measure_size=no_size,
    )


def seen_behind(nats: Sequence[Nat]) -> Outside:
    async def scenario() -> Outside:
        internet = MemoryInternet()
        return await look(internet, internet.home(nats), [server.endpoint for server in internet.servers])

    return virtual_time.run(scenario())


def report_of(found: Outside) -> Report:
    return Report(ipv4=Family(("192.168.1.10",), True, found))


@pytest.mark.parametrize("nats", CHAINS, ids=shown)
def test_what_is_found_is_what_the_nat_does(nats: list[Nat]) -> None:
    found = seen_behind(nats)
    assert (found.asked, found.answered, found.path_mtu) == (2, 2, 1400)
    assert found.rtt_ms == pytest.approx(10 * (1 + len(nats)), abs=1)
    if not nats:
        assert found.mapping is Mapping.NONE
    elif any(nat.dependent for nat in nats):
        assert found.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT
    else:
        assert found.mapping is Mapping.ENDPOINT_INDEPENDENT
    by_port = any(nat.filtering is NatFiltering.ADDRESS_AND_PORT_DEPENDENT for nat in nats)
    assert found.filtering is (Filtering.BY_PORT if by_port else Filtering.NOT_BY_PORT)


@pytest.mark.parametrize("nats", CHAINS, ids=shown)
def test_the_verdict_is_the_models(nats: list[Nat]) -> None:
    report = report_of(seen_behind(nats))
    expected = {peer: can_be_direct(nats, behind) for peer, behind in PEERS.items()}
    assert {peer: direct_with(report)[peer] for peer in PEERS} == expected
    in_a_word = {3: Verdict.MOST, 4: Verdict.ANYONE, 2: Verdict.SOME}
    assert verdict(report) is in_a_word[sum(expected.values())]


@pytest.mark.parametrize("allocation", [Allocation.CONTIGUOUS, Allocation.RANDOM])
@pytest.mark.parametrize("mapping", NatMapping)
def test_ports_in_order_are_told_by_three_nodes_and_reach_homes(
    mapping: NatMapping, allocation: Allocation
) -> None:
    async def scenario(servers: int) -> Outside:
        internet = MemoryInternet(servers=servers)
        home = internet.home([Nat(mapping, allocation=allocation)])
        return await look(internet, home, [server.endpoint for server in internet.servers])

    dependent, in_order = mapping is not NatMapping.ENDPOINT_INDEPENDENT, allocation is Allocation.CONTIGUOUS
    found = virtual_time.run(scenario(3))
    assert found.ports_in_order is (in_order if dependent else None)
    expected = Verdict.MOST if in_order or not dependent else Verdict.SOME
    assert verdict(report_of(found)) is expected
    assert virtual_time.run(scenario(2)).ports_in_order is None


@pytest.mark.parametrize("nats", SINGLE, ids=shown)
def test_hairpinning(nats: list[Nat]) -> None:
    assert seen_behind(nats).hairpinning is nats[0].hairpinning


def test_a_public_host_has_nothing_to_turn_round() -> None:
    assert seen_behind([]).hairpinning is None


@pytest.mark.parametrize("hairpinning", [True, False])
def test_it_is_the_outer_nat_that_hairpins(hairpinning: bool) -> None:
    chain = [PORT_RESTRICTED, replace(CARRIER, hairpinning=hairpinning)]
    assert seen_behind(chain).hairpinning is hairpinning


@pytest.mark.parametrize("nat", [PORT_RESTRICTED, SYMMETRIC], ids=lambda nat: nat.short)
def test_one_node_outside_does_not_tell_the_mapping(nat: Nat) -> None:
    async def scenario() -> Outside:
        internet = MemoryInternet()
        return await look(internet, internet.home([nat]), [internet.servers[0].endpoint])

    found = virtual_time.run(scenario())
    assert found.mapping is Mapping.UNKNOWN
    assert found.filtering is Filtering.BY_PORT
    assert verdict(report_of(found)) is Verdict.UNKNOWN


def test_a_second_one_found_in_the_dht_does() -> None:
    async def scenario() -> Outside:
        internet = MemoryInternet()
        first, second = (server.endpoint for server in internet.servers)
        return await look(internet, internet.home([SYMMETRIC]), [first], [first, second])

    found = virtual_time.run(scenario())
    assert (found.asked, found.answered) == (2, 2)
    assert found.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT


def test_dead_nodes_before_the_living_ones() -> None:
    async def scenario() -> Outside:
        internet = MemoryInternet()
        dead = [Endpoint(f"198.18.200.{number}", 4690) for number in range(1, 11)]
        servers = [*dead, *(server.endpoint for server in internet.servers)]
        return await look(internet, internet.home([PORT_RESTRICTED]), servers)

    found = virtual_time.run(scenario())
    assert (found.asked, found.answered) == (12, 2)
    assert found.mapping is Mapping.ENDPOINT_INDEPENDENT


def test_a_node_on_our_own_side_of_the_nat_is_no_witness() -> None:
    """It sees our own address, and says nothing about the NAT; it is not asked about the filter, either."""

    async def scenario() -> Outside:
        internet = MemoryInternet()
        lan = internet.home([PORT_RESTRICTED])
        neighbour = internet.port(lan, 4690)
        StunService(neighbour)  # type: ignore[arg-type]
        servers = [neighbour.endpoint, *(server.endpoint for server in internet.servers)]
        return await look(internet, lan, servers)

    found = virtual_time.run(scenario())
    assert found.answered == 3
    assert (found.mapping, found.filtering) == (Mapping.ENDPOINT_INDEPENDENT, Filtering.BY_PORT)
    assert len(found.public_endpoints) == 1


def test_only_a_neighbour_answers() -> None:
    """Behind a NAT, it sees a private address of ours, and a naive check would call this a public machine."""

    async def scenario() -> Outside:
        internet = MemoryInternet()
        lan = internet.home([SYMMETRIC])
        neighbour = internet.port(lan, 4690)
        StunService(neighbour)  # type: ignore[arg-type]
        return await look(internet, lan, [neighbour.endpoint])

    found = virtual_time.run(scenario())
    assert (found.answered, found.mapping, found.public_endpoints) == (1, Mapping.UNKNOWN, ())
    assert verdict(report_of(found)) is Verdict.UNKNOWN


def test_nobody_answers_and_it_is_soon_over() -> None:
    async def scenario() -> tuple[Outside, float]:

        internet = MemoryInternet()
        loop = asyncio.get_running_loop()
        began = loop.time()
        dead = [Endpoint("198.18.200.1", 4690)]
        found = await look(internet, internet.home([PORT_RESTRICTED]), dead)
        return found, loop.time() - began

    found, took_s = virtual_time.run(scenario())
    assert found == Outside(asked=1)
    assert took_s == pytest.approx(outside.ASK_S, abs=0.1)


@pytest.mark.parametrize("nats", CHAINS, ids=shown)
def test_it_takes_less_than_four_seconds(nats: list[Nat]) -> None:
    async def scenario() -> float:

        internet = MemoryInternet()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await look(internet, internet.home(nats), [server.endpoint for server in internet.servers])
        return loop.time() - began

    assert virtual_time.run(scenario()) < 4
