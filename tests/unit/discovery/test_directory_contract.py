"""One contract for every Directory: what publish, lookup and watch promise, whatever is behind them."""

import asyncio
import os
import time
from contextlib import aclosing

import pytest
from discovery_simulation import UNIX_START, Network, fake_envelope, fake_inspect, run, writer_of
from private_mainline import PrivateMainline, require_libtorrent
from simulated_items import SimulatedItems, topic_with
from simulated_lan import SimulatedLan

from dhtvpn.discovery.mainline import MainlineDirectory
from dhtvpn.discovery.memory import MemoryDirectory
from dhtvpn.discovery.racing import RacingDirectory
from dhtvpn.errors import DecodeError

KEY, OTHER = bytes(range(20)), bytes(range(20, 40))


class World:
    """Two nodes of the same directory, called publisher and reader, in virtual time."""

    run = staticmethod(run)
    soon_s = 1.0
    """Within which a watch tells of a change."""
    quiet_s = 100.0
    """For which it is listened whether it is silent."""

    def __init__(self, kind: str) -> None:
        self.net = Network()
        self.lan = SimulatedLan()
        self.kind = kind
        self.races: list[RacingDirectory] = []

    async def __aenter__(self):
        if self.kind == "memory":
            shared = MemoryDirectory(inspect=fake_inspect, unix_time=self.net.unix_time)
            self.publisher = self.reader = shared
        elif self.kind == "lan":
            self.publisher, self.reader = await self.lan.machine(1), await self.lan.machine(2)
        elif self.kind == "mainline":
            items = SimulatedItems()
            self.publisher, self.reader = (self._mainline(items) for _ in range(2))
        else:
            nodes = await self.net.grow(12)
            self.publisher, self.reader = nodes[3], nodes[9]
        if self.kind == "raced":
            self.publisher = self._race(kademlia=self.publisher, lan=await self.lan.machine(1))
            self.reader = self._race(lan=await self.lan.machine(2), kademlia=self.reader)
        return self

    def _mainline(self, items, **options):
        topics = {key: topic_with(key) for key in (KEY, OTHER)}
        options = {"unix_time": self.net.unix_time, "poll_s": (0.2,)} | options
        directory = MainlineDirectory(items, topics.get, inspect=fake_inspect, **options)
        self.races.append(directory)
        return directory

    async def pass_time(self, seconds):
        await asyncio.sleep(seconds)

    def _race(self, **sources):
        race = RacingDirectory(sources, inspect=fake_inspect, unix_time=self.net.unix_time)
        self.races.append(race)
        return race

    async def __aexit__(self, *_):
        for race in self.races:
            await race.close()
        await self.lan.close()
        await self.net.close()


class RealWorld(World):
    """Publisher and reader in a private DHT of libtorrent sessions, in the time that it takes."""

    run = staticmethod(asyncio.run)
    soon_s = 10.0
    quiet_s = 1.5

    def __init__(self, private: PrivateMainline) -> None:
        super().__init__("libtorrent")
        self._private = private
        self._ahead_s = 0.0
        self._began = time.monotonic()

    async def __aenter__(self):
        secret = os.urandom(20)  # the DHT keeps what other tests have stored
        topics = {key: topic_with(key, secret) for key in (KEY, OTHER)}
        self.publisher, self.reader = [await self._member(topics) for _ in range(2)]
        return self

    async def _member(self, topics):
        session = await self._private.member()
        directory = MainlineDirectory(
            session,
            topics.get,
            inspect=fake_inspect,
            unix_time=self._unix_time,
            poll_s=(0.2,),
            on_close=(session.close,),
        )
        self.races.append(directory)
        return directory

    def _unix_time(self):
        return UNIX_START + self._ahead_s + time.monotonic() - self._began

    async def pass_time(self, seconds):
        self._ahead_s += seconds


@pytest.fixture(scope="module")
def private_mainline():
    private = PrivateMainline()
    yield private
    private.close()


@pytest.fixture(params=["memory", "kademlia", "lan", "raced", "mainline", "libtorrent"])
def world(request):
    if request.param != "libtorrent":
        return World(request.param)
    require_libtorrent()
    return RealWorld(request.getfixturevalue("private_mainline"))


async def collect(directory, key):
    async with aclosing(directory.lookup(key)) as stream:
        return [envelope async for envelope in stream]


def test_what_is_published_is_found(world):
    async def scenario():
        async with world:
            envelope = fake_envelope(KEY, 1, 1)
            assert await world.publisher.publish(KEY, envelope) >= 1
            assert await collect(world.reader, KEY) == [envelope]

    world.run(scenario())


def test_an_absent_topic_is_empty_and_ends(world):
    async def scenario():
        async with world:
            assert await collect(world.reader, OTHER) == []

    world.run(scenario())


def test_every_writer_has_its_slot(world):
    async def scenario():
        async with world:
            envelopes = [fake_envelope(KEY, writer, 1) for writer in range(70)]
            for envelope in envelopes:
                await world.publisher.publish(KEY, envelope)
            assert sorted(await collect(world.reader, KEY)) == sorted(envelopes)

    world.run(scenario())


def test_the_newest_sequence_wins(world):
    async def scenario():
        async with world:
            newer = fake_envelope(KEY, 1, 2)
            await world.publisher.publish(KEY, fake_envelope(KEY, 1, 1))
            await world.publisher.publish(KEY, newer)
            assert await collect(world.reader, KEY) == [newer]

    world.run(scenario())


def test_an_older_sequence_is_not_stored(world):
    async def scenario():
        async with world:
            newer = fake_envelope(KEY, 1, 2)
            await world.publisher.publish(KEY, newer)
            assert await world.publisher.publish(KEY, fake_envelope(KEY, 1, 1)) == 0
            assert await collect(world.reader, KEY) == [newer]

    world.run(scenario())


def test_publishing_the_same_again_is_a_refresh(world):
    async def scenario():
        async with world:
            envelope = fake_envelope(KEY, 1, 1)
            first = await world.publisher.publish(KEY, envelope)
            assert await world.publisher.publish(KEY, envelope) == first

    world.run(scenario())


def test_what_has_expired_is_gone(world):
    async def scenario():
        async with world:
            await world.publisher.publish(KEY, fake_envelope(KEY, 1, 1, expires_in=60))
            await world.pass_time(90)
            assert await collect(world.reader, KEY) == []

    world.run(scenario())


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (b"", "format"),
        (fake_envelope(OTHER, 1, 1), "topic"),
        (fake_envelope(KEY, 1, 1, expires_in=-10), "expired"),
        (fake_envelope(KEY, 1, 1)[:60] + bytes(100), "signature"),
    ],
)
def test_publishing_what_does_not_verify_raises(world, envelope, reason):
    async def scenario():
        async with world:
            with pytest.raises(DecodeError) as caught:
                await world.publisher.publish(KEY, envelope)
            assert caught.value.reason == reason

    world.run(scenario())


def test_watch_gives_what_is_there_then_what_comes(world):
    async def scenario():
        async with world:
            await world.publisher.publish(KEY, fake_envelope(KEY, 1, 1))
            async with aclosing(world.reader.watch(KEY)) as stream:
                assert writer_of(await anext(stream)) == writer_of(fake_envelope(KEY, 1, 1))
                for writer, sequence in ((2, 1), (1, 2), (3, 1)):
                    envelope = fake_envelope(KEY, writer, sequence)
                    await world.publisher.publish(KEY, envelope)
                    assert await asyncio.wait_for(anext(stream), world.soon_s) == envelope

    world.run(scenario())


def test_watch_does_not_repeat_itself(world):
    async def scenario():
        async with world:
            envelope = fake_envelope(KEY, 1, 1)
            await world.publisher.publish(KEY, envelope)
            async with aclosing(world.reader.watch(KEY)) as stream:
                assert await anext(stream) == envelope
                await world.publisher.publish(KEY, envelope)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), world.quiet_s)

    world.run(scenario())


def test_two_watches_of_one_topic_are_independent(world):
    async def scenario():
        async with world, aclosing(world.reader.watch(KEY)) as one, aclosing(world.reader.watch(KEY)) as two:
            waiting = [asyncio.ensure_future(anext(stream)) for stream in (one, two)]
            await asyncio.sleep(1)
            envelope = fake_envelope(KEY, 1, 1)
            await world.publisher.publish(KEY, envelope)
            assert await asyncio.wait_for(asyncio.gather(*waiting), world.soon_s) == [envelope, envelope]

    world.run(scenario())
