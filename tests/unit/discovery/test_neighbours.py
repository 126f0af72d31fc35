"""Members ask each other on a simulated link: who answers, how often, and what a stranger can do."""

import asyncio
import os
from contextlib import aclosing
from itertools import pairwise

from discovery_simulation import UNIX_START, fake_envelope, fake_inspect, run
from simulated_lan import SECRET, SimulatedLan

from dhtvpn.discovery import neighbours
from dhtvpn.discovery.hints import HintDirectory
from dhtvpn.discovery.lan import LAN, SURVEY_S
from dhtvpn.discovery.lan_wire import DATAGRAM_SIZE, Note, epoch_key, seal, unseal
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.records.epochs import EPOCH_S, epoch_at

KEY, OTHER = bytes(range(20)), bytes(range(20, 40))
STRANGER = Endpoint("10.77.0.66", 14690)


def on_link(test):
    def wrapped():
        async def body():
            lan = SimulatedLan()
            try:
                await test(lan)
            finally:
                await lan.close()

        run(body())

    wrapped.__name__ = test.__name__
    return wrapped


def own(number, sequence=1):
    return fake_envelope(KEY, number, sequence, expires_in=7200, size=494)


def read(lan, data, secret=SECRET):
    epoch = epoch_at(lan.unix_time())
    return unseal(data, [epoch_key(secret, each) for each in (epoch - 1, epoch, epoch + 1)])


def sent_by(lan, number):
    return [(at, read(lan, data)) for at, source, data in lan.sent if source.host == f"10.77.0.{number}"]


def question(world):
    """As a member would ask now for KEY."""
    now = world.unix_time()
    return seal(Note(int(now), asked=(KEY,)), epoch_key(SECRET, epoch_at(now)), os.urandom)


class Watcher:
    """Watches KEY at ``directory`` and keeps what comes."""

    def __init__(self, directory):
        self.directory = directory
        self.seen = []
        self._task = asyncio.create_task(self._run())

    async def _run(self):
        async with aclosing(self.directory.watch(KEY)) as stream:
            async for envelope in stream:
                self.seen.append(envelope)

    async def stop(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def member(lan, number, **options):
    """One that watches and publishes, as a node does."""
    directory = await lan.machine(number, **options)
    watcher = Watcher(directory)
    await directory.publish(KEY, own(number))
    return watcher


@on_link
async def test_two_members_know_each_other_within_a_fifth_of_a_second(lan):
    one = await member(lan, 1)
    await asyncio.sleep(60)
    two = await member(lan, 2)
    await asyncio.sleep(0.2)
    assert one.seen == [own(2)] and two.seen == [own(1)]


@on_link
async def test_silence_is_all_there_is_between_members_that_know_each_other(lan):
    await member(lan, 1)
    await member(lan, 2)
    await asyncio.sleep(10)
    before = len(lan.sent)
    await asyncio.sleep(1800)
    assert len(lan.sent) == before


@on_link
async def test_everybody_is_found_by_few_datagrams(lan):
    members = [await member(lan, number) for number in range(1, 21)]
    await asyncio.sleep(10)
    assert all(len(watcher.seen) == 19 for watcher in members)
    for number in range(1, 21):
        assert len(sent_by(lan, number)) <= 24


@on_link
async def test_who_is_known_already_does_not_answer(lan):
    one, two = await member(lan, 1), await member(lan, 2)
    await asyncio.sleep(10)
    before = len(sent_by(lan, 1))
    two.directory.ask()
    await asyncio.sleep(10)
    assert len(sent_by(lan, 1)) == before
    assert sent_by(lan, 2)[-1][1].known, "it says what it has"
    await one.stop()


@on_link
async def test_a_question_that_is_lost_is_asked_again(lan):
    await member(lan, 1)
    await asyncio.sleep(60)
    losing = iter([True, True])
    lan.lost = lambda data: next(losing, False)
    two = await member(lan, 2)
    await asyncio.sleep(1.4)
    assert two.seen == [own(1)]


@on_link
async def test_answers_are_spread_and_rested(lan):
    """RFC 6762 section 6: 20 to 120 ms after the question, and the same not again at once."""
    await member(lan, 1)
    await asyncio.sleep(60)
    asker = await lan.machine(2)
    asked_at = asyncio.get_running_loop().time()
    for _ in range(20):
        watcher = Watcher(asker)
        await asyncio.sleep(0.125)
        await watcher.stop()
    times = [at for at, note in sent_by(lan, 1) if note.envelopes and at >= asked_at]
    assert 1 <= len(times) <= 10
    assert LAN.answer_after[0] <= times[0] - asked_at <= 0.3
    assert all(later - earlier >= LAN.answer_pause for earlier, later in pairwise(times))


@on_link
async def test_a_member_that_asks_without_end_is_answered_a_few_times_a_second(lan):
    await member(lan, 1)
    await asyncio.sleep(60)
    began, before = asyncio.get_running_loop().time(), len(lan.sent)
    for _ in range(2000):
        lan.directories[0].handle_datagram(question(lan), STRANGER)
        await asyncio.sleep(0.01)
    lasted_s = asyncio.get_running_loop().time() - began
    assert len(lan.sent) - before <= 4 * lasted_s + 1


@on_link
async def test_a_stranger_gets_no_answer(lan):
    await member(lan, 1)
    await asyncio.sleep(60)
    node, before = lan.directories[0], len(lan.sent)
    recorded = lan.sent[0][2]
    node.handle_datagram(b"", STRANGER)
    node.handle_datagram(bytes(DATAGRAM_SIZE), STRANGER)
    node.handle_datagram(recorded, STRANGER)
    wrong = seal(Note(int(lan.unix_time()), asked=(KEY,)), epoch_key(bytes(32), 0), os.urandom)
    node.handle_datagram(wrong, STRANGER)
    await asyncio.sleep(10)
    assert len(lan.sent) == before and node.heard == 0
    assert lan.drops.as_dict() == {"lan.seal": 2, "lan.size": 1}


@on_link
async def test_a_recording_makes_nobody_speak_but_once_who_has_not_heard_it(lan):
    await member(lan, 1)
    question = lan.sent[-1][2]
    await asyncio.sleep(60)
    newcomer = await member(lan, 2)
    await asyncio.sleep(30)
    before = len(lan.sent)
    for _ in range(100):
        for node in lan.directories:
            node.handle_datagram(question, STRANGER)
        await asyncio.sleep(1)
    assert len(lan.sent) - before <= 1
    await newcomer.stop()


@on_link
async def test_a_recording_is_worth_nothing_after_eleven_minutes(lan):
    await member(lan, 1)
    question = lan.sent[-1][2]
    await asyncio.sleep(neighbours.CLOCK_TOLERANCE_S + 1)
    late = await lan.machine(2)
    late.handle_datagram(question, STRANGER)
    assert late.heard == 0 and lan.drops.as_dict() == {"lan.clock": 1}


@on_link
async def test_garbage_costs_no_more_than_so_many_openings(lan):
    node = await lan.machine(1)
    for _ in range(2000):
        node.handle_datagram(os.urandom(DATAGRAM_SIZE), STRANGER)
    counts = lan.drops.as_dict()
    assert counts["lan.seal"] == neighbours.OPENED_AT_ONCE
    assert counts["lan.too_many"] == 2000 - neighbours.OPENED_AT_ONCE


@on_link
async def test_nothing_grows(lan):
    node = await lan.machine(1)
    streams = [node.watch(KEY) for _ in range(neighbours.MAX_READERS + 10)]
    tasks = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.sleep(0)
    assert len(node._readers) == neighbours.MAX_READERS
    assert lan.drops.as_dict()["lan.readers_full"] == 10
    for number in range(neighbours.MAX_OWN + 10):
        await node.publish(KEY, own(number))
    assert len(node._own) == neighbours.MAX_OWN
    key = epoch_key(SECRET, epoch_at(lan.unix_time()))
    for _ in range(50):
        for _ in range(150):
            node.handle_datagram(seal(Note(int(lan.unix_time())), key, os.urandom), STRANGER)
        await asyncio.sleep(1)
    assert node.heard > neighbours.MAX_NONCES and len(node._nonces) == neighbours.MAX_NONCES
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for stream in streams:
        await stream.aclose()
    assert not node._readers


@on_link
async def test_members_whose_clocks_differ_hear_each_other_around_the_hour(lan):
    to_the_hour = EPOCH_S - UNIX_START % EPOCH_S
    await asyncio.sleep(to_the_hour - 300)
    one = await member(lan, 1, unix_time=lambda: lan.unix_time() + 290)
    two = await member(lan, 2, unix_time=lambda: lan.unix_time() - 290)
    await asyncio.sleep(1)
    assert one.seen == [own(2)] and two.seen == [own(1)]
    three = await lan.machine(3)
    await asyncio.sleep(600)
    watcher = Watcher(three)
    await asyncio.sleep(1)
    assert sorted(watcher.seen) == sorted([own(1), own(2)])


@on_link
async def test_another_network_on_the_same_link_is_not_heard(lan):
    one = await member(lan, 1)
    other = await member(lan, 2, secret=bytes(32))
    await asyncio.sleep(5)
    assert one.seen == other.seen == []
    assert set(lan.drops.as_dict()) == {"lan.seal"}


@on_link
async def test_an_interface_that_comes_is_used(lan):
    one = await member(lan, 1)
    two = await lan.machine(2)
    port = lan.ports[Endpoint("10.77.0.2", 14690)]
    port.up = False
    await asyncio.sleep(SURVEY_S + 1)
    watcher = Watcher(two)
    assert await two.publish(KEY, own(2)) == 0, "there is no way to anybody"
    await asyncio.sleep(30)
    assert not watcher.seen and two.interfaces == []
    began = asyncio.get_running_loop().time()
    async with aclosing(two.lookup(KEY)) as stream:
        assert [envelope async for envelope in stream] == []
    assert asyncio.get_running_loop().time() - began < 0.01, "there is nobody to wait for"
    port.up = True
    await asyncio.sleep(SURVEY_S + 0.3)
    assert watcher.seen == [own(1)] and one.seen == [own(2)] and two.interfaces == ["eth0"]


@on_link
async def test_a_new_record_is_announced_at_once_and_the_same_seldom(lan):
    one, two = await member(lan, 1), await member(lan, 2)
    await asyncio.sleep(60)
    await one.directory.publish(KEY, own(1, 2))
    await asyncio.sleep(0.01)
    assert two.seen == [own(1), own(1, 2)]
    before = len(lan.sent)
    for _ in range(20):
        assert await one.directory.publish(KEY, own(1, 2)) == 1
        await asyncio.sleep(10)
    assert 3 <= len(lan.sent) - before <= 4
    assert await one.directory.publish(KEY, own(1, 1)) == 0


@on_link
async def test_all_datagrams_look_alike(lan):
    """Question, answer, announcement: one length, and no octet that two of them share for a reason."""
    await member(lan, 1)
    await member(lan, 2)
    await lan.directories[0].publish(KEY, own(1, 2))
    await asyncio.sleep(60)
    datagrams = [data for _, _, data in lan.sent]
    assert len(datagrams) > 4 and {len(data) for data in datagrams} == {DATAGRAM_SIZE}
    for position in range(DATAGRAM_SIZE - 8):
        pieces = {data[position : position + 8] for data in datagrams}
        assert len(pieces) == len(datagrams)


class Hinted:
    """Two nodes and the internet between them."""

    def __init__(self):
        self.sent = []
        self.nodes = {}
        self.drops = Drops()

    def unix_time(self):
        return UNIX_START + asyncio.get_running_loop().time() - 1000.0

    def node(self, number, reachable=True):
        source = Endpoint(f"198.18.0.{number}", 4690)

        def send(data, destination):
            self.sent.append((source, destination, data))
            target = self.nodes.get(destination)
            if target is not None:
                asyncio.get_running_loop().call_later(0.02, target.handle_datagram, data, source)
            return True

        directory = HintDirectory(
            send,
            epoch_key=lambda epoch: epoch_key(SECRET, epoch),
            inspect=fake_inspect,
            drops=self.drops,
            monotonic=asyncio.get_running_loop().time,
            unix_time=self.unix_time,
        )
        if reachable:
            self.nodes[source] = directory
        return directory


def test_a_hint_is_asked_at_once_and_answers_to_who_asked():
    async def scenario():
        world = Hinted()
        server, laptop = world.node(1), world.node(2)
        at_server, at_laptop = Watcher(server), Watcher(laptop)
        assert await server.publish(KEY, own(1)) == 0
        await asyncio.sleep(60)
        assert world.sent == [], "who has no hint speaks to nobody"
        await laptop.publish(KEY, own(2))
        laptop.aim([Endpoint("198.18.0.1", 4690)])
        await asyncio.sleep(0.1)
        assert at_laptop.seen == [own(1)] and at_server.seen == [own(2)]
        assert len(world.sent) == 2
        await asyncio.sleep(3600)
        assert len(world.sent) == 2, "who has been answered asks no more"
        for part in (at_server, at_laptop, server, laptop):
            await (part.stop() if isinstance(part, Watcher) else part.close())

    run(scenario())


def test_a_hint_that_does_not_answer_is_asked_ever_less_often():
    async def scenario():
        world = Hinted()
        laptop = world.node(2)
        watcher = Watcher(laptop)
        await laptop.publish(KEY, own(2))
        laptop.aim([Endpoint("198.18.0.1", 4690)] * 5)
        await asyncio.sleep(600)
        assert 10 <= len(world.sent) <= 20
        server = world.node(1)
        await server.publish(KEY, own(1))
        await asyncio.sleep(61)
        assert watcher.seen == [own(1)]
        await watcher.stop()
        await server.close()
        await laptop.close()

    run(scenario())


def test_an_answer_to_an_address_that_nobody_has_proven_is_three_datagrams_at_most():
    async def scenario():
        world = Hinted()
        server = world.node(1)
        for number in range(50):
            await server.publish(KEY, fake_envelope(KEY, number, 1, size=800))
        world.nodes.clear()
        for _ in range(20):
            before = len(world.sent)
            server.handle_datagram(question(world), STRANGER)
            assert len(world.sent) - before <= neighbours.MAX_REPLIES
            await asyncio.sleep(1)
        await server.close()

    run(scenario())
