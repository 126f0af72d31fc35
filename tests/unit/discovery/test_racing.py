"""Sources raced: the first to bring a record is named, and none delays or stops another."""

import asyncio
import logging
from contextlib import aclosing

import pytest
from discovery_simulation import UNIX_START, fake_envelope, fake_inspect, run

from dhtvpn.discovery import racing
from dhtvpn.discovery.memory import MemoryDirectory
from dhtvpn.discovery.racing import Finding, RacingDirectory
from dhtvpn.errors import DecodeError

KEY = bytes(range(20))
ONE, TWO = fake_envelope(KEY, 1, 1), fake_envelope(KEY, 2, 1)


def unix_time():
    return UNIX_START + asyncio.get_running_loop().time() - 1000.0


class Slow(MemoryDirectory):
    """Takes ``delay_s`` for everything."""

    def __init__(self, delay_s=0.0):
        super().__init__(inspect=fake_inspect, unix_time=unix_time)
        self.delay_s = delay_s

    async def publish(self, dht_key, envelope):
        await asyncio.sleep(self.delay_s)
        return await super().publish(dht_key, envelope)

    async def lookup(self, dht_key):
        await asyncio.sleep(self.delay_s)
        async with aclosing(super().lookup(dht_key)) as stream:
            async for envelope in stream:
                yield envelope

    async def watch(self, dht_key):
        await asyncio.sleep(self.delay_s)
        async with aclosing(super().watch(dht_key)) as stream:
            async for envelope in stream:
                yield envelope


class Hanging:
    async def publish(self, dht_key, envelope):
        await asyncio.Event().wait()

    async def lookup(self, dht_key):
        await asyncio.Event().wait()
        yield b""

    watch = lookup


class Raising:
    """Every call fails; ``envelopes`` are yielded before that."""

    def __init__(self, *envelopes):
        self.envelopes = envelopes
        self.calls = 0

    async def publish(self, dht_key, envelope):
        self.calls += 1
        raise RuntimeError("broken")

    async def lookup(self, dht_key):
        self.calls += 1
        for envelope in self.envelopes:
            yield envelope
        raise RuntimeError("broken")

    watch = lookup


class Ending:
    """Closed: nothing is stored, nothing comes, watches end at once."""

    def __init__(self):
        self.watches = 0

    async def publish(self, dht_key, envelope):
        return 0

    async def lookup(self, dht_key):
        return
        yield b""

    async def watch(self, dht_key):
        self.watches += 1
        return
        yield b""


def race(**sources):
    return RacingDirectory(sources, inspect=fake_inspect, unix_time=unix_time)


def scenario(test):
    def wrapped(*arguments, **fixtures):
        before = set()

        async def body():
            before.update(asyncio.all_tasks())
            await test(*arguments, **fixtures)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == before, "nothing runs on"

        run(body())

    wrapped.__name__ = test.__name__
    return wrapped


async def collect(directory):
    async with aclosing(directory.lookup_named(KEY)) as stream:
        return [finding async for finding in stream]


@scenario
async def test_who_brings_it_first_is_named():
    near, far = Slow(0.1), Slow(0.5)
    for source in (near, far):
        await source.publish(KEY, ONE)
    await far.publish(KEY, TWO)
    both = race(far=far, near=near)
    assert await collect(both) == [Finding(ONE, "near"), Finding(TWO, "far")]
    async with aclosing(both.lookup(KEY)) as stream:
        assert [both.source_of(envelope) async for envelope in stream] == ["near", "far"]
    assert both.source_of(b"never seen") is None
    await both.close()


@scenario
async def test_what_a_source_brings_is_checked_again():
    lying = Raising(b"nonsense", fake_envelope(bytes(20), 1, 1), ONE)
    both = race(lying=lying)
    assert await collect(both) == [Finding(ONE, "lying")]
    await both.close()


@pytest.mark.parametrize("other", [Hanging(), Raising(), Ending()], ids=["hangs", "raises", "ends"])
def test_a_bad_source_costs_the_others_nothing(other):
    @scenario
    async def test():
        loop = asyncio.get_running_loop()
        good = Slow(0.1)
        both = race(bad=other, good=good)
        began = loop.time()
        assert await both.publish(KEY, ONE) == 1
        assert loop.time() - began <= 0.1 + racing.PUBLISH_GRACE_S + 0.01
        assert both.confirmed == {"bad": 0, "good": 1}
        began = loop.time()
        async with aclosing(both.lookup_named(KEY)) as stream:
            assert await anext(stream) == Finding(ONE, "good")
            assert loop.time() - began < 0.11
            assert [finding async for finding in stream] == []
            assert loop.time() - began <= racing.LOOKUP_DEADLINE_S + 0.01
        async with aclosing(both.watch_named(KEY)) as stream:
            assert await anext(stream) == Finding(ONE, "good")
            await asyncio.sleep(200)
            await good.publish(KEY, TWO)
            assert await asyncio.wait_for(anext(stream), 1) == Finding(TWO, "good")
        await both.close()

    test()


@scenario
async def test_nobody_answers_and_still_it_ends():
    alone = race(hanging=Hanging())
    assert await alone.publish(KEY, ONE) == 0
    assert await collect(alone) == []
    await alone.close()
    empty = race()
    assert await empty.publish(KEY, ONE) == 0
    assert await collect(empty) == []
    await empty.close()


@scenario
async def test_a_source_that_confirmed_nothing_is_asked_again():
    raising, good = Raising(), Slow()
    both = race(raising=raising, good=good)
    assert await both.publish(KEY, ONE) == 1
    await asyncio.sleep(racing.RETRY_S[0] + racing.RETRY_S[1] + 0.1)
    assert raising.calls == 3
    await asyncio.sleep(1800)
    assert 50 < raising.calls < 70, "ever less often, but it goes on"
    calls = raising.calls
    await both.publish(KEY, fake_envelope(KEY, 1, 2))
    await asyncio.sleep(racing.RETRY_S[0] / 2)
    assert raising.calls == calls + 1, "the newer envelope takes the place of the older"
    await asyncio.sleep(1900)
    calls = raising.calls
    await asyncio.sleep(1000)
    assert raising.calls == calls, "it has expired"
    await both.close()


@scenario
async def test_a_slow_confirmation_is_counted_later():
    slow, quick = Slow(3.0), Slow(0.0)
    both = race(slow=slow, quick=quick)
    assert await both.publish(KEY, ONE) == 1
    assert both.confirmed == {"slow": 0, "quick": 1}
    await asyncio.sleep(3)
    assert both.confirmed == {"slow": 1, "quick": 1}
    await both.close()


@scenario
async def test_publishing_what_is_refused_reaches_no_source():
    raising = Raising()
    one = race(raising=raising)
    with pytest.raises(DecodeError):
        await one.publish(KEY, b"nonsense")
    assert raising.calls == 0
    await one.close()


@scenario
async def test_a_watch_that_ends_is_opened_again_ever_less_often():
    ending = Ending()
    one = race(ending=ending)
    async with aclosing(one.watch(KEY)) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(600)
        assert 8 <= ending.watches <= 15
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await one.close()


@scenario
async def test_closing_ends_watches_and_what_comes_later():
    one = race(hanging=Hanging())
    async with aclosing(one.watch(KEY)) as stream:
        waiting = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(1)
        await one.close()
        assert await waiting is None
    assert await collect(one) == []


@scenario
async def test_topics_that_are_kept_published_are_capped():
    one = race(hanging=Hanging())
    keys = [bytes([number]) * 20 for number in range(racing.MAX_TOPICS + 20)]
    publishing = [asyncio.ensure_future(one.publish(key, fake_envelope(key, 1, 1))) for key in keys]
    await asyncio.sleep(1)
    assert len(one._publications) == racing.MAX_TOPICS
    assert await asyncio.gather(*publishing) == [0] * len(keys)
    await one.close()


def test_a_failing_source_is_named_in_the_log(caplog):
    @scenario
    async def test():
        one = race(broken=Raising())
        with caplog.at_level(logging.WARNING):
            await collect(one)
        assert "source broken: lookup failed (RuntimeError: broken)" in caplog.text
        await one.close()

    test()


@scenario
async def test_who_brings_it_again_is_told_once():
    near, far = Slow(0.1), Slow(0.5)
    for source in (near, far):
        await source.publish(KEY, ONE)
    both, again = race(far=far, near=near), []
    both.on_brought_again(lambda envelope, source: again.append((envelope, source)))
    async with aclosing(both.lookup(KEY)) as stream:
        assert [envelope async for envelope in stream] == [ONE]
    assert again == [(ONE, "far")]
    assert both.has_brought("near", ONE) and both.has_brought("far", ONE)
    assert not both.has_brought("far", TWO)
    async with aclosing(both.lookup(KEY)) as stream:
        assert [envelope async for envelope in stream] == [ONE]
    assert again == [(ONE, "far")]
    await both.close()


@scenario
async def test_what_never_verified_is_not_brought_again():
    lying, again = Raising(b"nonsense", b"nonsense"), []
    both = race(lying=lying)
    both.on_brought_again(lambda envelope, source: again.append(source))
    assert await collect(both) == [] and again == []
    assert not both.has_brought("lying", b"nonsense")
    await both.close()
