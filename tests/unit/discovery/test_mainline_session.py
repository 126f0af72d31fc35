"""libtorrent in our event loop: every operation ends, whatever libtorrent says, repeats or never says."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from fake_libtorrent import FAKE, FakeSession, Item, Overflow, OwnAddress, Refused, Stored
from nacl.signing import SigningKey
from private_mainline import require_libtorrent
from virtual_time import run

from dhtvpn.discovery import libtorrent_session, mainline_session
from dhtvpn.discovery.mainline_session import (
    MAX_VALUE,
    MORE_S,
    NOTHING_S,
    PUT_DEADLINE_S,
    MainlineSession,
)
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError

KEY = SigningKey(bytes(range(32)))
PUBLIC = bytes(KEY.verify_key)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch):
    """They do not live in virtual time."""

    async def here(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", here)


@asynccontextmanager
async def opened(drops=None):
    fake = FakeSession()
    session = MainlineSession(FAKE, fake, drops)
    try:
        yield session, fake
    finally:
        await session.close()


def item(value, *, final=False, salt=b"s"):
    return Item(key=PUBLIC, salt=salt, item=value, authoritative=final)


def stored(count, salt=b"s"):
    return Stored(public_key=PUBLIC, salt=salt, num_success=count)


async def search(session, salt=b"s"):
    return [value async for value in session.get(PUBLIC, salt)]


async def asked(fake, count):
    while len(fake.asked) < count:  # noqa: ASYNC110 - in virtual time
        await asyncio.sleep(0.001)


def elapsed():
    return asyncio.get_running_loop().time()


def test_values_come_until_the_search_has_ended():
    async def scenario():
        async with opened() as (session, fake):
            reading = asyncio.create_task(search(session))
            await asked(fake, 1)
            fake.say(item(b"one"), item(["no", "octets"]), item(b"x" * (MAX_VALUE + 1)))
            await asyncio.sleep(0.1)
            fake.say(item(b"two", final=True))
            assert await reading == [b"one", b"two"]

    run(scenario())


def test_a_search_that_libtorrent_never_ends_ends():
    async def scenario():
        async with opened() as (session, fake):
            began = elapsed()
            assert await search(session) == []
            assert elapsed() - began == pytest.approx(NOTHING_S, abs=0.1)
            began = elapsed()
            reading = asyncio.create_task(search(session))
            await asked(fake, 2)
            fake.say(item(b"one"))
            assert await reading == [b"one"]
            assert elapsed() - began == pytest.approx(MORE_S, abs=0.1)

    run(scenario())


def test_a_reader_that_is_cancelled_as_a_value_comes_is_cancelled():
    """asyncio.wait_for of Python 3.11 returns the value and swallows the cancellation: watches went on."""

    async def scenario():
        async with opened() as (session, fake):
            for number in range(20):
                reading = asyncio.create_task(search(session))
                await asked(fake, number + 1)
                fake.say(item(b"one"))
                for _ in range(number % 6):
                    await asyncio.sleep(0)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                fake.say(item(None, final=True))
                await asyncio.sleep(0.01)

    run(scenario())


def test_a_store_without_an_answer_ends_and_the_next_one_gets_its_own():
    async def scenario():
        async with opened() as (session, fake):
            began = elapsed()
            assert await session.put(KEY, b"s", b"value") == 0
            assert elapsed() - began == pytest.approx(PUT_DEADLINE_S, abs=0.1)
            fake.say(stored(3))  # at last
            await asyncio.sleep(0.1)
            storing = asyncio.create_task(session.put(KEY, b"s", b"value"))
            await asked(fake, 2)
            fake.say(stored(8))
            assert await storing == 8

    run(scenario())


def test_a_lost_answer_is_forgotten():
    async def scenario():
        async with opened() as (session, fake):
            assert await session.put(KEY, b"s", b"value") == 0
            await asyncio.sleep(mainline_session.FORGOTTEN_S)
            storing = asyncio.create_task(session.put(KEY, b"s", b"value"))
            await asked(fake, 2)
            fake.say(stored(8))
            assert await storing == 8

    run(scenario())


def test_when_alerts_were_dropped_everything_ends_and_is_counted(caplog):
    async def scenario():
        drops = Drops()
        async with opened(drops) as (session, fake):
            began = elapsed()
            reading = [asyncio.create_task(search(session, salt)) for salt in (b"a", b"b")]
            storing = asyncio.create_task(session.put(KEY, b"s", b"value"))
            await asked(fake, 3)
            fake.say(item(b"one", salt=b"a"), Overflow())
            assert await asyncio.gather(*reading) == [[b"one"], []]
            assert await storing == 0
            assert elapsed() - began < 0.2 and drops.as_dict() == {"mainline.alerts": 1}

    run(scenario())
    assert "more to say than it could queue" in caplog.text


def test_alerts_from_before_we_listened_are_read():
    async def scenario():
        fake = FakeSession()
        fake.say(Refused(error="no such device"))
        session = MainlineSession(FAKE, fake)
        await asyncio.sleep(0.01)
        assert "no such device" in session.refused
        await session.close()

    run(scenario())


def test_our_own_address_is_never_asked():
    async def scenario():
        async with opened() as (_, fake):
            fake.say(OwnAddress(external_address="198.51.100.1"), OwnAddress(external_address="2001:db8::1"))
            await asyncio.sleep(0.01)
            assert fake.filters[-1] == [
                ("198.51.100.1", "198.51.100.1", 1),
                ("2001:db8::1", "2001:db8::1", 1),
            ]

    run(scenario())


def test_closing_ends_what_waits_and_what_comes_later():
    async def scenario():
        async with opened() as (session, fake):
            reading = asyncio.create_task(search(session))
            storing = asyncio.create_task(session.put(KEY, b"s", b"value"))
            await asked(fake, 2)
            await session.close()
            assert await reading == [] and await storing == 0
            assert await search(session) == [] and await session.put(KEY, b"s", b"value") == 0
            assert len(fake.asked) == 2

    run(scenario())


def test_many_wait_their_turn():
    async def scenario():
        async with opened() as (session, fake):
            reading = [asyncio.create_task(search(session, bytes([n]))) for n in range(100)]
            await asyncio.sleep(0.1)
            assert len(fake.asked) == mainline_session.MAX_AT_ONCE
            await asyncio.gather(*reading)
            assert Counter(salt for _, _, salt in fake.asked) == Counter(bytes([n]) for n in range(100))

    run(scenario())


def test_a_value_that_is_too_long_is_refused():
    async def scenario():
        async with opened() as (session, _):
            with pytest.raises(ValueError, match="octets"):
                await session.put(KEY, b"s", bytes(MAX_VALUE + 1))

    run(scenario())


def test_nobody_is_asked_who_was_not_named():
    """libtorrent has a router of its own for whoever names none."""
    require_libtorrent()
    libtorrent = libtorrent_session.load()
    options = {"read_only": True, "restricted": True}
    none = libtorrent_session.settings(libtorrent, ["127.0.0.1"], (), **options)
    assert none["dht_bootstrap_nodes"] == "" != libtorrent.default_settings()["dht_bootstrap_nodes"]
    routers = [Endpoint("192.0.2.1", 6881), Endpoint("2001:db8::1", 6881)]
    some = libtorrent_session.settings(libtorrent, ["127.0.0.1", "::1"], routers, **options)
    assert some["dht_bootstrap_nodes"] == "192.0.2.1:6881,[2001:db8::1]:6881"
    assert some["listen_interfaces"] == "127.0.0.1:0,[::1]:0"
    assert some["dht_read_only"] is True and "dht_enforce_node_id" not in some


def test_a_missing_wheel_is_named_with_the_command(monkeypatch):
    def refuse(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(libtorrent_session.importlib, "import_module", refuse)
    with pytest.raises(
        SystemRefusedError, match=r"mainline needs libtorrent.*pip install 'dhtvpn\[mainline\]'"
    ):
        libtorrent_session.load()
