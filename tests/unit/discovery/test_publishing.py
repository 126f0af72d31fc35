"""How soon a record is stored, and how soon those who watch or ask have it."""

import asyncio
from contextlib import aclosing

import pytest
from discovery_simulation import Network, fake_envelope, run, writer_of

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.polling import ASK_S
from dhtvpn.discovery.publishing import EARLY, Publication
from dhtvpn.discovery.shortlist import Shortlist
from dhtvpn.endpoint import Endpoint

KEY = bytes(range(20))
LATENCY_S = 0.05
ROUND_TRIP_S = 2 * 1.2 * LATENCY_S  # the simulation's latency varies by a fifth


def contact(distance):
    return Contact(bytes(19) + bytes([distance]), Endpoint(f"198.18.{distance}.1", 4690))


async def test_the_closest_that_answered_get_it_at_once_and_the_rest_at_the_end():
    stored = []

    async def confirm(yes):
        return yes

    def store(one):
        stored.append(one)
        return asyncio.ensure_future(confirm(one != contact(5)))

    contacts = [contact(number) for number in range(1, 9)]
    shortlist = Shortlist(bytes(20))
    shortlist.start(contacts)
    publication = Publication(store)
    for one in contacts[1:6]:
        shortlist.answered(one)
    publication.progress(shortlist)
    publication.progress(shortlist)
    assert stored == contacts[1:EARLY], "the closest has not answered, the fourth and later ones wait"
    shortlist.failed(contacts[0])
    publication.progress(shortlist)
    assert stored == contacts[1 : EARLY + 1]
    assert await publication.finish(contacts[1:6]) == 4
    assert stored == contacts[1:6]


def test_a_new_member_is_found_three_round_trips_after_its_first_datagram():
    """First nodes, closest nodes, store and push."""

    async def scenario():
        loop = asyncio.get_running_loop()
        net = Network(latency_s=LATENCY_S)
        await net.grow(40)
        contacts = [net.endpoint(number) for number in range(3)]
        first = net.node(50, behind_nat=True, read_only=True)
        await first.start(contacts)
        heard = loop.create_future()

        async def listen():
            async with aclosing(first.watch(KEY)) as stream:
                await anext(stream)
                heard.set_result(loop.time())

        listening = asyncio.ensure_future(listen())
        await asyncio.sleep(60)
        second = net.node(51, behind_nat=True, read_only=True)
        watching = asyncio.ensure_future(anext(second.watch(KEY)))
        await asyncio.sleep(0)
        began = loop.time()
        assert await second.start(contacts) == len(contacts)
        assert await second.publish(KEY, fake_envelope(KEY, 2, 1)) == 8
        assert await heard - began <= 3.2 * ROUND_TRIP_S
        await asyncio.gather(listening, watching)
        await net.close()

    run(scenario())


def test_in_a_small_network_the_first_answer_is_enough_to_store():
    """First node with its token, store, push: no question in between whose answer is known."""

    async def scenario():
        loop = asyncio.get_running_loop()
        net = Network(latency_s=LATENCY_S)
        await net.grow(1)
        first = net.node(50, behind_nat=True, read_only=True)
        await first.start([net.endpoint(0)])
        watching = asyncio.ensure_future(anext(first.watch(KEY)))
        await asyncio.sleep(60)
        second = net.node(51, behind_nat=True, read_only=True)
        began = loop.time()
        await second.start([net.endpoint(0)])
        publishing = asyncio.ensure_future(second.publish(KEY, fake_envelope(KEY, 2, 1)))
        await watching
        assert loop.time() - began <= 2.1 * ROUND_TRIP_S
        assert await publishing == 1
        began = loop.time()
        assert await second.publish(KEY, fake_envelope(KEY, 2, 2)) == 1
        assert loop.time() - began > 1.2 * ROUND_TRIP_S, "nobody waits for it: it goes only to the closest"
        await net.close()

    run(scenario())


@pytest.mark.parametrize("pause_s", [0.1, 0.7, 1.3, 1.9])
def test_without_pushes_a_new_member_is_found_at_the_next_question(pause_s):
    async def scenario():
        loop = asyncio.get_running_loop()
        net = Network(latency_s=LATENCY_S)
        await net.grow(20)
        first = net.node(50, behind_nat=True, read_only=True, subscribe=False)
        await first.start([net.endpoint(0)])
        async with aclosing(first.watch(KEY)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(60 + pause_s)
            assert await net.directories[7].publish(KEY, fake_envelope(KEY, 2, 1)) >= 7
            stored_at = loop.time()
            assert writer_of(await waiting) == writer_of(fake_envelope(KEY, 2, 1))
            assert loop.time() - stored_at <= ASK_S + 2 * ROUND_TRIP_S
        await net.close()

    run(scenario())
