"""Networks with more members than the roster holds, over the in-memory directory: who publishes where, who
is found by address or name, who is called, and what is said of an address without a member."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from virtual_time import run

from dhtvpn.discovery.memory import MemoryDirectory
from dhtvpn.drops import Drops
from dhtvpn.errors import UsageError
from dhtvpn.identity import Identity
from dhtvpn.membership.addresses import ipv4_address, ipv6_address
from dhtvpn.membership.network_id import create
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.config import ROSTER_SIZE, roster_size
from dhtvpn.node.finder import Finder
from dhtvpn.node.on_demand import LOOKUP_DEADLINE_S, MAX_LOOKUPS, OnDemand
from dhtvpn.records.envelope import OpenedRecord
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topic import Topic

NETWORK_ID, _ = create(os.urandom)
SIZE = 3
NOW = 500_000 * 3600.0 + 1800


class Clock:
    def __call__(self) -> float:
        return NOW + asyncio.get_running_loop().time() - 1000.0


class Member:
    """As a node wires them up, without paths."""

    def __init__(self, directory: Any, number: int, name: str = "") -> None:
        self.identity = Identity.from_seed(number.to_bytes(32, "big"))
        self.key = self.identity.node_key
        self.name = name or f"member-{number}"
        self.connected: list[bytes] = []
        self.contenders: list[bytes] = []
        self.refused: list[Any] = []
        self.resolves: list[bool] = []
        self.drops = Drops()
        self.clock = Clock()
        roster = Roster()
        self.on_demand = OnDemand(
            directory=directory,
            network_id=NETWORK_ID,
            own_key=self.key,
            own_name=self.name,
            own_ipv4=lambda: self.ipv4,
            roster_size=SIZE,
            roster=roster,
            connect=lambda opened: self.connected.append(opened.record.node_key),
            contender=lambda opened: self.contenders.append(opened.record.node_key),
            no_member=self.refused.append,
            resolve=self.resolves.append,
            became_crowded=self.connected.clear,
            drops=self.drops,
            unix_time=self.clock,
        )
        self.announcer = Announcer(
            directory=directory,
            identity=self.identity,
            topic_at=lambda epoch: Topic.derive(NETWORK_ID.secret, epoch),
            record=lambda: EndpointRecord(self.key, self.name, bytes(16), (), 0, 1, 0),
            random_bytes=os.urandom,
            published=lambda _: self.on_demand.follow(),
            roster_open=self.on_demand.roster_open,
            more_topics=self.on_demand.published_topics,
            unix_time=self.clock,
        )
        self.finder = Finder(
            directory=directory,
            topic_at=lambda epoch: Topic.derive(NETWORK_ID.secret, epoch),
            roster=roster,
            own_node_key=self.key,
            member_found=self._member_found,
            member_expired=lambda _: None,
            drops=self.drops,
            more_topics=self.on_demand.watched_topics,
            caller_found=lambda opened: self.connected.append(opened.record.node_key),
            roster_changed=self.on_demand.follow,
            roster_watched=self.on_demand.roster_watched,
            unix_time=self.clock,
        )
        self.on_demand.use(self.announcer, self.finder)
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def ipv4(self) -> IPv4Address:
        return ipv4_address(NETWORK_ID, self.key)

    @property
    def ipv6(self) -> IPv6Address:
        return ipv6_address(NETWORK_ID, self.key)

    def _member_found(self, opened: OpenedRecord) -> None:
        if not self.on_demand.crowded():
            self.connected.append(opened.record.node_key)

    async def join(self) -> None:
        """Read first, then publish, as a node does that asks for its public address meanwhile."""
        self.tasks = [asyncio.create_task(self.finder.run())]
        await asyncio.sleep(0.5)
        works = (self.announcer.run(), self.on_demand.run())
        self.tasks += [asyncio.create_task(work) for work in works]
        await asyncio.sleep(0.5)

    async def leave(self) -> None:
        await self.on_demand.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def scenario(
    test: Callable[[list[Member], MemoryDirectory], Coroutine[Any, Any, None]],
) -> Callable[[], None]:
    """Run ``test`` with SIZE + 2 members that have joined one after the other."""

    async def whole() -> None:
        directory = MemoryDirectory(unix_time=Clock())
        members = [Member(directory, number) for number in range(1, SIZE + 3)]
        for member in members:
            await member.join()
        await asyncio.sleep(30)
        await test(members, directory)
        for member in members:
            await member.leave()

    def wrapped() -> None:
        run(whole())

    wrapped.__name__ = test.__name__
    return wrapped


@scenario
async def test_the_first_know_each_other_and_the_rest_is_not_in_the_roster(
    members: list[Member], directory: MemoryDirectory
) -> None:
    epoch = int(NOW // 3600)
    roster = Topic.derive(NETWORK_ID.secret, epoch)
    assert len([1 async for _ in directory.lookup(roster.dht_key)]) == SIZE
    for member in members[:SIZE]:
        others = {other.key for other in members[:SIZE]} - {member.key}
        assert set(member.connected) == others, "a full mesh of those in the roster"
    for late in members[SIZE:]:
        assert late.on_demand.crowded() and late.on_demand.full()
        assert not late.connected
    assert all(member.resolves == [True] for member in members)


@scenario
async def test_an_address_is_found_and_its_member_called(
    members: list[Member], directory: MemoryDirectory
) -> None:
    caller, callee = members[SIZE], members[SIZE + 1]
    for address in (callee.ipv4, callee.ipv6):
        caller.connected.clear()
        callee.connected.clear()
        caller.on_demand.wanted(address)
        caller.on_demand.wanted(address)
        await asyncio.sleep(1)
        assert caller.connected == [callee.key]
        assert caller.key in callee.connected
        assert not caller.refused
    in_roster = members[0]
    caller.on_demand.wanted(in_roster.ipv4)
    await asyncio.sleep(1)
    assert in_roster.key in caller.connected and caller.key in in_roster.connected


@scenario
async def test_a_name_is_found(members: list[Member], directory: MemoryDirectory) -> None:
    caller, callee = members[SIZE], members[SIZE + 1]
    assert await caller.on_demand.seek(callee.name.upper())
    assert caller.connected == [callee.key]
    assert await caller.on_demand.seek(str(callee.ipv6))
    assert await caller.on_demand.seek(members[0].name)
    assert not await caller.on_demand.seek("nobody")
    assert not await caller.on_demand.seek("x" * 64)
    assert not await caller.on_demand.seek("")


@scenario
async def test_an_address_without_a_member_is_refused_in_time(
    members: list[Member], directory: MemoryDirectory
) -> None:
    caller = members[SIZE]
    network_host = ip_address(int(caller.ipv4) ^ 1)
    caller.on_demand.wanted(network_host)
    caller.on_demand.wanted(ip_address("192.0.2.1"))
    caller.on_demand.wanted(caller.ipv6)
    await asyncio.sleep(3.0)
    assert set(caller.refused) == {network_host, ip_address("192.0.2.1"), caller.ipv6}
    assert not caller.connected


@scenario
async def test_a_directory_that_never_answers_does_not_delay_the_verdict(
    members: list[Member], directory: MemoryDirectory
) -> None:
    caller = members[SIZE]

    async def never(dht_key: bytes) -> Any:
        await asyncio.Event().wait()
        yield b""

    directory.lookup = never  # type: ignore[method-assign]
    base = int(caller.ipv4) & ~0xFFFF
    asked = [ip_address(base + 256 + number) for number in range(MAX_LOOKUPS + 5)]
    for address in asked:
        caller.on_demand.wanted(address)
    assert caller.refused == asked[MAX_LOOKUPS:], "more than can be looked for are refused at once"
    await asyncio.sleep(LOOKUP_DEADLINE_S + 0.01)
    assert set(caller.refused) == set(asked)
    assert caller.drops.as_dict()["node.lookups_full"] == 5


@scenario
async def test_who_shares_our_address_is_found_under_it(
    members: list[Member], directory: MemoryDirectory
) -> None:
    """Two members whose IPv4 addresses fall together publish under one topic and see each other there."""
    victim, other = members[SIZE], members[SIZE + 1]
    epoch = int(NOW // 3600)
    shared = Topic.of_address(NETWORK_ID.secret, epoch, victim.ipv4)
    envelope = other.announcer.sealed(shared, int(NOW) + 3000)
    assert envelope is not None
    await directory.publish(shared.dht_key, envelope)
    await asyncio.sleep(601)
    assert other.key in victim.contenders


@scenario
async def test_the_next_epoch_s_roster_is_filled_anew_and_members_stay_reachable(
    members: list[Member], directory: MemoryDirectory
) -> None:
    await asyncio.sleep(2400)
    epoch = int(NOW // 3600) + 1
    assert int(members[0].clock() // 3600) == epoch
    roster = Topic.derive(NETWORK_ID.secret, epoch)
    assert SIZE <= len([1 async for _ in directory.lookup(roster.dht_key)]) <= len(members)
    for caller in members:
        for callee in members:
            if caller is not callee:
                assert await caller.on_demand.seek(str(callee.ipv4)), (caller.name, callee.name)


def test_the_size_of_the_roster_can_only_be_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DHTVPN_ROSTER_SIZE", raising=False)
    assert roster_size() == ROSTER_SIZE
    monkeypatch.setenv("DHTVPN_ROSTER_SIZE", "2")
    assert roster_size() == 2
    for wrong in ("0", "65", "-1", "two", "", "\u0662"):
        monkeypatch.setenv("DHTVPN_ROSTER_SIZE", wrong)
        with pytest.raises(UsageError, match="from 1 to 64"):
            roster_size()
