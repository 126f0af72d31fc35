"""One contract for every Directory: what publish, lookup and watch promise, whatever is behind them."""

import asyncio
from contextlib import aclosing

import pytest
from discovery_simulation import Network, fake_envelope, fake_inspect, run, writer_of
from simulated_lan import SimulatedLan

from dhtvpn.discovery.memory import MemoryDirectory
from dhtvpn.discovery.racing import RacingDirectory
from dhtvpn.errors import DecodeError

KEY, OTHER = bytes(range(20)), bytes(range(20, 40))


class World:
    """Two nodes of the same directory, called publisher and reader."""

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
        else:
            nodes = await self.net.grow(12)
            self.publisher, self.reader = nodes[3], nodes[9]
        if self.kind == "raced":
            self.publisher = self._race(kademlia=self.publisher, lan=await self.lan.machine(1))
            self.reader = self._race(lan=await self.lan.machine(2), kademlia=self.reader)
        return self

    def _race(self, **sources):
        race = RacingDirectory(sources, inspect=fake_inspect, unix_time=self.net.unix_time)
        self.races.append(race)
        return race

    async def __aexit__(self, *_):
        for race in self.races:
            await race.close()
        await self.lan.close()
        await self.net.close()


@pytest.fixture(params=["memory", "kademlia", "lan", "raced"])
def world(request):
    return World(request.param)


async def collect(directory, key):
    async with aclosing(directory.lookup(key)) as stream:
        return [envelope async for envelope in stream]


def test_what_is_published_is_found(world):
    async def scenario():
        async with world:
            envelope = fake_envelope(KEY, 1, 1)
            assert await world.publisher.publish(KEY, envelope) >= 1
            assert await collect(world.reader, KEY) == [envelope]

    run(scenario())


def test_an_absent_topic_is_empty_and_ends(world):
    async def scenario():
        async with world:
            assert await collect(world.reader, OTHER) == []

    run(scenario())


def test_every_writer_has_its_slot(world):
    async def scenario():
        async with world:
            envelopes = [fake_envelope(KEY, writer, 1) for writer in range(70)]
            for envelope in envelopes:
                await world.publisher.publish(KEY, envelope)
            assert sorted(await collect(world.reader, KEY)) == sorted(envelopes)

    run(scenario())


def test_the_newest_sequence_wins(world):
    async def scenario():
        async with world:
            newer = fake_envelope(KEY, 1, 2)
            await world.publisher.publish(KEY, fake_envelope(KEY, 1, 1))
            await world.publisher.publish(KEY, newer)
            assert await collect(world.reader, KEY) == [newer]

    run(scenario())


def test_an_older_sequence_is_not_stored(world):
    async def scenario():
        async with world:
            newer = fake_envelope(KEY, 1, 2)
            await world.publisher.publish(KEY, newer)
            assert await world.publisher.publish(KEY, fake_envelope(KEY, 1, 1)) == 0
            assert await collect(world.reader, KEY) == [newer]

    run(scenario())


def test_publishing_the_same_again_is_a_refresh(world):
    async def scenario():
        async with world:
            envelope = fake_envelope(KEY, 1, 1)
            first = await world.publisher.publish(KEY, envelope)
            assert await world.publisher.publish(KEY, envelope) == first

    run(scenario())


def test_what_has_expired_is_gone(world):
    async def scenario():
        async with world:
            await world.publisher.publish(KEY, fake_envelope(KEY, 1, 1, expires_in=60))
            await asyncio.sleep(90)
            assert await collect(world.reader, KEY) == []

    run(scenario())


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

    run(scenario())


def test_watch_gives_what_is_there_then_what_comes(world):
    async def scenario():
        async with world:
            await world.publisher.publish(KEY, fake_envelope(KEY, 1, 1))
            async with aclosing(world.reader.watch(KEY)) as stream:
                assert writer_of(await anext(stream)) == writer_of(fake_envelope(KEY, 1, 1))
                for writer, sequence in ((2, 1), (1, 2), (3, 1)):
                    envelope = fake_envelope(KEY, writer, sequence)
                    await world.publisher.publish(KEY, envelope)
                    assert await asyncio.wait_for(anext(stream), 1) == envelope

    run(scenario())


def test_watch_does_not_repeat_itself(world):
    async def scenario():
        async with world:
            envelope = fake_envelope(KEY, 1, 1)
            await world.publisher.publish(KEY, envelope)
            async with aclosing(world.reader.watch(KEY)) as stream:
                assert await anext(stream) == envelope
                await world.publisher.publish(KEY, envelope)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 100)

    run(scenario())


def test_two_watches_of_one_topic_are_independent(world):
    async def scenario():
        async with world, aclosing(world.reader.watch(KEY)) as one, aclosing(world.reader.watch(KEY)) as two:
            waiting = [asyncio.ensure_future(anext(stream)) for stream in (one, two)]
            await asyncio.sleep(1)
            envelope = fake_envelope(KEY, 1, 1)
            await world.publisher.publish(KEY, envelope)
            assert await asyncio.wait_for(asyncio.gather(*waiting), 1) == [envelope, envelope]

    run(scenario())
