"""ICE through every two simulated NATs: it connects exactly where the behaviours leave room for it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import pytest
import virtual_time
from nat_in_memory import MemoryInternet, MemoryPort, Realm

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError
from dhtvpn.lab.nat_behaviour import (
    ADDRESS_RESTRICTED,
    CARRIER,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Allocation,
    Filtering,
    Mapping,
    Nat,
    can_be_direct,
)
from dhtvpn.nat.candidates import CandidateKind
from dhtvpn.nat.ice import IceAgent

DEADLINE_S = 4.0
"""Virtual seconds; what connects here takes a few round trips of 0.03 to 0.06 s."""

SINGLE = [[Nat(mapping, filtering, Allocation.RANDOM)] for mapping, filtering in product(Mapping, Filtering)]
CHAINS: list[list[Nat]] = [
    [],
    *SINGLE,
    [PORT_RESTRICTED, CARRIER],
    [SYMMETRIC, CARRIER],
    [OPEN_FILTERING, SYMMETRIC],
    [replace(SYMMETRIC, filtering=Filtering.ENDPOINT_INDEPENDENT), CARRIER],
    [PORT_RESTRICTED, PORT_RESTRICTED],
]
Credentials = Callable[..., object]


def shown(nats: Sequence[Nat]) -> str:
    return "+".join(nat.short for nat in nats) or "public"


async def connects(internet: MemoryInternet, ports: Sequence[MemoryPort], credentials: Credentials) -> bool:
    """Join the two; both must name the same pair, each the other's side of it."""
    mine = credentials()
    sides = (mine, mine.mirrored())
    offered = [await internet.candidates(port) for port in ports]
    agents = [
        IceAgent(port, side, own, peers)
        for port, side, own, peers in zip(ports, sides, offered, reversed(offered), strict=True)
    ]
    try:
        selected = await asyncio.gather(
            *(agent.connect(DEADLINE_S) for agent in agents), return_exceptions=True
        )
    finally:
        for agent in agents:
            await agent.close()
    for outcome in selected:
        assert isinstance(outcome, Endpoint | TimedOutError), outcome
    connected = [isinstance(outcome, Endpoint) for outcome in selected]
    assert all(connected) or not any(connected)
    return all(connected)


def joined(build: Callable[[MemoryInternet], tuple[Realm, Realm]], credentials: Credentials) -> bool:
    """Build two hosts' realms, join the hosts, in virtual time."""

    async def scenario() -> bool:
        internet = MemoryInternet()
        return await connects(internet, [internet.port(realm) for realm in build(internet)], credentials)

    return virtual_time.run(scenario())


@pytest.mark.parametrize("one", CHAINS, ids=shown)
def test_every_two_nats(one: list[Nat], credentials: Credentials) -> None:
    """Both ways round: the controlling side is behind ``one``, then behind the other."""
    for other in CHAINS:
        direct = joined(lambda net, b=other: (net.home(one), net.home(b)), credentials)
        assert direct == can_be_direct(one, other), f"{shown(one)} - {shown(other)}"


@pytest.mark.parametrize("allocation", Allocation)
def test_allocation_changes_nothing_for_an_independent_mapping(
    allocation: Allocation, credentials: Credentials
) -> None:
    one, other = [Nat(allocation=allocation)], [replace(ADDRESS_RESTRICTED, allocation=allocation)]
    assert joined(lambda net: (net.home(one), net.home(other)), credentials)


@pytest.mark.parametrize("nat", [PORT_RESTRICTED, SYMMETRIC], ids=lambda nat: nat.short)
def test_one_lan_needs_no_nat(nat: Nat, credentials: Credentials) -> None:
    def one_lan(internet: MemoryInternet) -> tuple[Realm, Realm]:
        lan = internet.home([nat])
        return lan, lan

    assert joined(one_lan, credentials)


def test_a_predicted_port_joins_what_else_does_not_and_costs_one_check(credentials: Credentials) -> None:
    """A home that lets in only what it has asked, and a NAT with another port for each destination."""

    async def scenario() -> None:
        internet = MemoryInternet()
        in_order = replace(SYMMETRIC, allocation=Allocation.CONTIGUOUS)
        home, other = (internet.port(internet.home([nat])) for nat in (PORT_RESTRICTED, in_order))
        at_home, (own, seen) = await internet.candidates(home), await internet.candidates(other)
        mine = credentials()
        agents = [
            IceAgent(home, mine, at_home, [own, seen]),
            IceAgent(other, mine.mirrored(), [own, seen], at_home),
        ]
        connecting = [asyncio.create_task(agent.connect(DEADLINE_S)) for agent in agents]
        await asyncio.sleep(
            1.0
        )  # the other's checks have opened a mapping to home's own address, and this one
        guesses = [Endpoint(seen[0].host, seen[0].port + number) for number in range(1, 5)]
        for guess in guesses:
            agents[0].add_remote(guess, "PREDICTED")
        assert await connecting[0] == guesses[1]
        assert await connecting[1] == at_home[1][0]
        assert agents[0].selected_kind is CandidateKind.PREDICTED
        requests = {pair.remote: pair.requests for pair in agents[0].pairs()}
        assert all(requests[guess] <= 1 for guess in guesses if guess != guesses[1])
        for agent in agents:
            await agent.close()

    virtual_time.run(scenario())


def test_predicted_ports_that_are_wrong_get_one_check_each(credentials: Credentials) -> None:
    async def scenario() -> None:
        internet = MemoryInternet()
        home = internet.port(internet.home([PORT_RESTRICTED]))
        guesses = [(Endpoint("198.18.200.1", 30_000 + number), "PREDICTED") for number in range(16)]
        agent = IceAgent(home, credentials(), await internet.candidates(home), guesses)
        with pytest.raises(TimedOutError):
            await agent.connect(12.0)
        assert [pair.requests for pair in agent.pairs()] == 16 * [1]
        await agent.close()

    virtual_time.run(scenario())


@pytest.mark.parametrize("hairpinning", [True, False])
@pytest.mark.parametrize("home", [PORT_RESTRICTED, SYMMETRIC], ids=lambda nat: nat.short)
def test_two_homes_behind_one_carrier(home: Nat, hairpinning: bool, credentials: Credentials) -> None:
    def homes(internet: MemoryInternet) -> tuple[Realm, Realm]:
        carrier = internet.home([replace(CARRIER, hairpinning=hairpinning)])
        return internet.home([home], carrier), internet.home([PORT_RESTRICTED], carrier)

    assert joined(homes, credentials) is (hairpinning and home is PORT_RESTRICTED)


@pytest.mark.parametrize("early", [0, 1])
def test_a_side_that_starts_seconds_later_is_met(early: int, credentials: Credentials) -> None:
    async def scenario() -> None:
        internet = MemoryInternet()
        ports = [internet.port(internet.home([PORT_RESTRICTED])) for _ in range(2)]
        offered = [await internet.candidates(port) for port in ports]
        mine = credentials()
        sides = (mine, mine.mirrored())
        loop = asyncio.get_running_loop()
        first = IceAgent(ports[early], sides[early], offered[early], offered[1 - early])
        connecting = asyncio.create_task(first.connect(20.0))
        await asyncio.sleep(4.0)
        late = IceAgent(ports[1 - early], sides[1 - early], offered[1 - early], offered[early])
        started = loop.time()
        await late.connect(5.0)
        await connecting
        assert loop.time() - started < 0.5
        for agent in (first, late):
            await agent.close()

    virtual_time.run(scenario())


def test_checks_keep_a_short_lived_mapping_open(credentials: Credentials) -> None:
    """The peer comes long after the mapping that STUN made would have expired."""

    async def scenario() -> None:
        internet = MemoryInternet()
        short = replace(PORT_RESTRICTED, allocation=Allocation.RANDOM, expiry_s=20)
        ports = [internet.port(internet.home([short])) for _ in range(2)]
        offered = [await internet.candidates(port) for port in ports]
        mine = credentials()
        early = IceAgent(ports[0], mine, offered[0], offered[1])
        connecting = asyncio.create_task(early.connect(120.0))
        await asyncio.sleep(60.0)
        offered[1] = await internet.candidates(ports[1])
        early.add_remote(*offered[1][1])
        late = IceAgent(ports[1], mine.mirrored(), offered[1], offered[0])
        await late.connect(5.0)
        await connecting
        for agent in (early, late):
            await agent.close()

    virtual_time.run(scenario())
