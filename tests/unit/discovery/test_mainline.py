"""The directory over BEP 44 items in virtual time: lost entries, full pages, the absent, and its pace."""

import asyncio
from contextlib import aclosing

from discovery_simulation import Network, fake_envelope, fake_inspect, run
from simulated_items import HOLDERS, SimulatedItems, topic_with

from dhtvpn.discovery.mainline import MainlineDirectory
from dhtvpn.discovery.mainline_items import PAGE_ENTRIES, open_page, page_salt, seal_page
from dhtvpn.drops import Drops

KEY = bytes(range(20))
TOPIC = topic_with(KEY)


class World:
    """Items that all share, and directories that are closed at the end."""

    def __init__(self):
        self.items, self.drops = SimulatedItems(), Drops()
        self._net = Network()
        self._open = []

    def directory(self, **options):
        options = {"inspect": fake_inspect, "unix_time": self._net.unix_time, "drops": self.drops} | options
        self._open.append(MainlineDirectory(self.items, {KEY: TOPIC}.get, **options))
        return self._open[-1]

    def page(self, number=0):
        return open_page(TOPIC, number, self.items.values[TOPIC.public_key, page_salt(TOPIC, number)])

    def set_page(self, entries, number=0):
        value = seal_page(TOPIC, number, entries, bytes)
        self.items.values[TOPIC.public_key, page_salt(TOPIC, number)] = value

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for directory in self._open:
            await directory.close()
        await self._net.close()


async def collect(directory):
    async with aclosing(directory.lookup(KEY)) as stream:
        return [envelope async for envelope in stream]


def test_many_who_write_at_once_are_all_listed_in_the_end():
    async def scenario():
        async with World() as world:
            envelopes = [fake_envelope(KEY, writer, 1) for writer in range(12)]
            counts = await asyncio.gather(*(world.directory().publish(KEY, one) for one in envelopes))
            assert counts == [HOLDERS] * 12
            assert len(world.page()) < 12, "they have overwritten each other"
            await asyncio.sleep(600)
            assert sorted(await collect(world.directory())) == sorted(envelopes)

    run(scenario())


def test_a_page_that_is_emptied_is_filled_again():
    async def scenario():
        async with World() as world:
            writer = world.directory()
            await writer.publish(KEY, fake_envelope(KEY, 1, 1))
            world.set_page({})
            await asyncio.sleep(30)
            assert len(world.page()) == 1

    run(scenario())


def test_the_second_page_is_used_when_the_first_is_full():
    async def scenario():
        async with World() as world:
            world.set_page({number.to_bytes(8, "big"): 1 for number in range(1, PAGE_ENTRIES + 1)})
            envelope = fake_envelope(KEY, 1, 1)
            assert await world.directory().publish(KEY, envelope) == HOLDERS
            assert len(world.page(0)) == PAGE_ENTRIES and len(world.page(1)) == 1
            assert await collect(world.directory()) == [envelope]

    run(scenario())


def test_when_every_page_is_full_nothing_is_confirmed():
    async def scenario():
        async with World() as world:
            for number in range(3):
                world.set_page({n.to_bytes(8, "big"): 1 for n in range(1, PAGE_ENTRIES + 1)}, number)
            assert await world.directory().publish(KEY, fake_envelope(KEY, 1, 1)) == 0
            assert world.drops.as_dict() == {"mainline.pages_full": 1}

    run(scenario())


def test_what_is_listed_but_absent_is_asked_for_less_and_less():
    async def scenario():
        async with World() as world:
            world.set_page({b"absent!!": 1})
            reader = world.directory(poll_s=(1.0,))

            async def read():
                async with aclosing(reader.watch(KEY)) as stream:
                    async for _ in stream:
                        raise AssertionError

            reading = asyncio.create_task(read())
            await asyncio.sleep(3600)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            asked = [salt for salt in world.items.gets if salt != page_salt(TOPIC, 0)]
            assert 8 < len(asked) < 20

    run(scenario())


def test_garbage_in_a_page_is_dropped_and_counted():
    async def scenario():
        async with World() as world:
            world.items.values[TOPIC.public_key, page_salt(TOPIC, 0)] = bytes(168)
            assert await collect(world.directory()) == []
            assert world.drops.as_dict() == {"mainline.seal": 1}

    run(scenario())


def looks(relaxed, duration_s):
    """How often a watch looks at a page in which nothing changes."""

    async def scenario():
        async with World() as world:
            reader = world.directory(relaxed=lambda: relaxed)

            async def read():
                async with aclosing(reader.watch(KEY)) as stream:
                    async for _ in stream:
                        pass

            reading = asyncio.create_task(read())
            await asyncio.sleep(duration_s)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            return len(world.items.gets)

    return run(scenario())


def test_a_watch_looks_less_and_less_and_least_where_another_source_tells():
    """Bounds that hold however the quarter falls by which each pause varies."""
    hour = 3600
    assert 12 <= looks(False, 240) <= 20
    assert 60 <= looks(False, hour) <= 95
    assert 15 <= looks(True, hour) <= 25


def test_a_watch_that_is_cancelled_ends():
    """Whatever arrives at that moment: every pause of the loop is tried."""

    async def scenario():
        async with World() as world:
            await world.directory().publish(KEY, fake_envelope(KEY, 1, 1))
            for step in range(60):
                reader = world.directory(poll_s=(0.01,))
                stream = reader.watch(KEY)
                first = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(step * 0.002)
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
                async with asyncio.timeout(5):
                    await stream.aclose()

    run(scenario())
