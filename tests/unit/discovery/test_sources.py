"""A node's sources by name: started, judged and closed together; a late or broken one holds nobody up."""

import asyncio
from contextlib import aclosing
from types import SimpleNamespace

from discovery_simulation import UNIX_START, fake_envelope, fake_inspect, run

from dhtvpn.discovery import sources as module
from dhtvpn.discovery.hints import HintDirectory
from dhtvpn.discovery.memory import MemoryDirectory
from dhtvpn.discovery.sources import (
    Condition,
    Source,
    Sources,
    broken_source,
    hint_source,
    kademlia_source,
    lan_source,
    late_source,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError

KEY = bytes(range(20))


def unix_time():
    return UNIX_START + asyncio.get_running_loop().time() - 1000.0


class Opened(MemoryDirectory):
    """What a slow source turns out to be."""

    def __init__(self):
        super().__init__(inspect=fake_inspect, unix_time=unix_time)
        self.closed = False

    async def close(self):
        self.closed = True

    def condition(self):
        return Condition(True, "7 nodes")


def bundle(*parts):
    return Sources(parts, inspect=fake_inspect, unix_time=unix_time)


def test_what_is_published_while_a_source_opens_is_there_when_it_has_opened():
    async def scenario():
        opened = Opened()

        async def open_directory():
            await asyncio.sleep(20)
            return opened

        both = bundle(late_source("mainline", open_directory))
        await both.start()
        assert both.conditions() == {"mainline": Condition(False, "being opened")}
        envelope = fake_envelope(KEY, 1, 1)
        assert await both.race.publish(KEY, envelope) == 0
        async with aclosing(both.race.watch_named(KEY)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(10)
            assert not waiting.done()
            assert await waiting == (envelope, "mainline")
        async with aclosing(both.race.lookup(KEY)) as found:
            assert [each async for each in found] == [envelope]
        assert both.conditions() == {"mainline": Condition(True, "7 nodes")}
        await both.close()
        assert opened.closed

    run(scenario())


def test_a_source_that_cannot_be_opened_says_why_and_is_tried_again():
    async def scenario():
        attempts = []

        async def open_directory():
            attempts.append(1)
            if len(attempts) < 3:
                raise SystemRefusedError("no libtorrent here")
            return Opened()

        one = bundle(late_source("mainline", open_directory))
        await one.start()
        await asyncio.sleep(1)
        assert one.conditions() == {"mainline": Condition(False, "no libtorrent here")}
        await asyncio.sleep(2 * module.REOPEN_S)
        assert one.conditions()["mainline"].works and len(attempts) == 3
        await one.close()

    run(scenario())


def test_closing_while_it_opens():
    async def scenario():
        one = bundle(late_source("mainline", asyncio.Event().wait))
        await one.start()
        await asyncio.sleep(1)
        await one.close()
        assert len(asyncio.all_tasks()) <= 2  # ours and the runner's

    run(scenario())


def test_one_that_does_not_start_stops_no_other(caplog):
    async def scenario():
        started = []

        async def refuse():
            raise SystemRefusedError("no port")

        async def start():
            started.append("good")

        async def close():
            started.remove("good")

        bad = broken_source("lan", "no port")
        good = Source("good", Opened(), lambda: Condition(True, ""), start, close)
        refusing = Source("refusing", bad.directory, bad.condition, refuse, bad.close)
        both = bundle(refusing, good, bad)
        await both.start()
        assert started == ["good"] and "source refusing: no port" in caplog.text
        assert both.conditions()["lan"] == Condition(False, "no port")
        assert await both.race.publish(KEY, fake_envelope(KEY, 1, 1)) == 1
        async with aclosing(both.race.lookup_named(KEY)) as stream:
            assert [finding.source async for finding in stream] == ["good"]
        assert both.contacts() == []
        await both.close()
        assert started == []

    run(scenario())


def test_what_each_says_of_itself():
    async def scenario():
        dht = SimpleNamespace(size=0, start=None, close=None)
        kademlia = kademlia_source(dht)
        assert kademlia.condition() == (False, "0 nodes known")
        dht.size = 1
        assert kademlia.condition() == (True, "1 node known")
        lan = SimpleNamespace(interfaces=["eth0", "wlan0"], start=None, close=None)
        assert lan_source(lan).condition() == (True, "eth0, wlan0")
        lan.interfaces = []
        assert lan_source(lan).condition() == (False, "no interface to speak on")
        hints = HintDirectory(lambda data, endpoint: True, epoch_key=lambda epoch: bytes(32))
        hint = hint_source(hints)
        assert hint.condition() == (False, "no --peer given")
        hints.aim([Endpoint("198.18.0.1", 1)])
        assert hint.condition() == (False, "no answer from 198.18.0.1:1")
        hints.heard = 1
        assert hint.condition() == (True, "198.18.0.1:1")
        await hints.close()

    run(scenario())
