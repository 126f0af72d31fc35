"""Announcer and finder over the in-memory directory: what one member publishes, the others find."""

import asyncio
import os
from typing import Any

from virtual_time import run

from dhtvpn.discovery.memory import MemoryDirectory
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.node import announcer as announcer_module
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.finder import Finder
from dhtvpn.records.envelope import OpenedRecord
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topic import Topic

SECRET = bytes([5]) * 32


MID_HOUR = 500_000 * 3600.0 + 1200
"""Far from the change of epochs, near which a member publishes under two topics."""


def clock() -> float:
    return MID_HOUR + asyncio.get_running_loop().time() - 1000.0


class Member:
    """Publishes and finds through a shared directory."""

    def __init__(self, directory: Any, seed: int, name: str) -> None:
        self.identity = Identity.from_seed(bytes([seed]) * 32)
        self.name, self.leaving = name, False
        self.port = 1000
        self.found: list[OpenedRecord] = []
        self.expired: list[bytes] = []
        self.published: list[int] = []
        self.drops = Drops()
        self.announcer = Announcer(
            directory=directory,
            identity=self.identity,
            topic_at=lambda epoch: Topic.derive(SECRET, epoch),
            record=self.record,
            random_bytes=os.urandom,
            published=self.published.append,
            unix_time=clock,
        )
        self.finder = Finder(
            directory=directory,
            topic_at=lambda epoch: Topic.derive(SECRET, epoch),
            roster=Roster(),
            own_node_key=self.identity.node_key,
            member_found=self.found.append,
            member_expired=self.expired.append,
            drops=self.drops,
            unix_time=clock,
        )

    def record(self) -> EndpointRecord:
        return EndpointRecord(
            node_key=self.identity.node_key,
            name=self.name,
            session_nonce=bytes(16),
            candidates=(Candidate(Endpoint("198.18.1.1", self.port), CandidateKind.HOST),),
            ipv4_attempt=0,
            since=1,
            features=0,
            leaving=self.leaving,
        )


class LonelyDirectory(MemoryDirectory):
    """Nobody confirms anything, as before bootstrapping; counts the attempts."""

    attempts = 0

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        self.attempts += 1
        await super().publish(dht_key, envelope)
        return 0


def scenario(test: Any) -> Any:
    def wrapped() -> None:
        run(test())

    wrapped.__name__ = test.__name__
    return wrapped


async def stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@scenario
async def test_members_find_each_other_and_see_changes() -> None:
    directory = MemoryDirectory(unix_time=clock)
    one, two = Member(directory, 1, "one"), Member(directory, 2, "two")
    tasks = [asyncio.create_task(work) for work in (one.announcer.run(), two.announcer.run())]
    tasks += [asyncio.create_task(work) for work in (one.finder.run(), two.finder.run())]
    await asyncio.sleep(1)
    assert [opened.record.name for opened in one.found] == ["two"]
    assert [opened.record.name for opened in two.found] == ["one"]
    two.port = 2000
    two.announcer.announce()
    await asyncio.sleep(1)
    assert [opened.record.candidates[0].endpoint.port for opened in one.found] == [1000, 2000]
    assert one.found[1].sequence > one.found[0].sequence
    two.leaving = True
    await two.announcer.goodbye(two.record())
    await asyncio.sleep(1)
    assert one.found[-1].record.leaving
    await stop(*tasks)


@scenario
async def test_a_late_member_looks_up_what_was_there_before() -> None:
    directory = MemoryDirectory(unix_time=clock)
    one, late = Member(directory, 1, "one"), Member(directory, 2, "late")
    publishing = asyncio.create_task(one.announcer.run())
    await asyncio.sleep(1)
    await late.finder.look_up()
    assert [opened.record.name for opened in late.found] == ["one"]
    await late.finder.look_up()
    assert len(late.found) == 1, "the same record again is no news"
    await stop(publishing)


@scenario
async def test_unconfirmed_publications_are_tried_again_soon() -> None:
    directory = LonelyDirectory(unix_time=clock)
    member = Member(directory, 1, "one")
    publishing = asyncio.create_task(member.announcer.run())
    await asyncio.sleep(sum(announcer_module.RETRY_S))
    assert len(announcer_module.RETRY_S) <= len(member.published) <= len(announcer_module.RETRY_S) + 2
    assert set(member.published) == {0}
    await stop(publishing)


@scenario
async def test_strangers_records_are_dropped_and_counted() -> None:
    """An envelope that the directory yields but that is sealed under another secret."""

    class Odd(MemoryDirectory):
        async def lookup(self, dht_key: bytes) -> Any:
            yield b"no envelope"
            yield os.urandom(400)

    member = Member(Odd(unix_time=clock), 1, "one")
    await member.finder.look_up()
    assert not member.found
    assert sum(member.drops.as_dict().values()) >= 2


@scenario
async def test_a_place_that_closes_and_opens_again_gets_the_same_envelope() -> None:
    """Another envelope with the same sequence number would be refused for ever."""
    directory = MemoryDirectory(unix_time=clock)
    member = Member(directory, 1, "one")
    seen: list[tuple[bytes, bytes]] = []
    publish = directory.publish

    async def noting(dht_key: bytes, envelope: bytes) -> int:
        seen.append((dht_key, envelope))
        return await publish(dht_key, envelope)

    directory.publish = noting  # type: ignore[method-assign]
    wanted = [True]
    extra = bytes([6]) * 32
    member.announcer._more_topics = lambda epoch: [Topic.derive(extra, epoch)] if wanted[0] else []
    task = asyncio.create_task(member.announcer.run())
    await asyncio.sleep(1)
    for wanted[0] in (False, True):
        member.announcer.announce()
        await asyncio.sleep(30)
    keys = {Topic.derive(extra, epoch).dht_key for epoch in range(int(clock() // 3600) + 2)[-3:]}
    envelopes = [envelope for key, envelope in seen if key in keys]
    assert len(envelopes) >= 2
    assert len(set(envelopes)) == len({key for key, _ in seen if key in keys})
    await stop(task)
