"""The run of a lookup in virtual time: soft timeouts, the deadline, cancelling, results as they come."""

import asyncio
from contextlib import aclosing

import pytest
from discovery_simulation import Network, fake_envelope, run

from dhtvpn.discovery import lookup
from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.lookup import DEADLINE_S
from dhtvpn.discovery.round_trips import INITIAL_S
from dhtvpn.discovery.shortlist import PATH_ALPHA, PATHS, Shortlist
from dhtvpn.endpoint import Endpoint

KEY = bytes(range(20))
HARD_TIMEOUT_S = 2.0
RTT_S = 0.08


def contact(rank):
    return Contact(rank.to_bytes(20, "big"), Endpoint("198.18.0.1", rank))


class Nodes:
    """Answer after RTT_S, or not at all; remember who was asked when."""

    def __init__(self, dead=(), named=()):
        self.dead, self.named = set(dead), list(named)
        self.asked_at = {}
        self.cancelled = []

    def ask(self, one):
        self.asked_at[one] = asyncio.get_running_loop().time()
        return asyncio.ensure_future(self._answer(one))

    async def _answer(self, one):
        try:
            await asyncio.sleep(HARD_TIMEOUT_S if one in self.dead else RTT_S)
        except asyncio.CancelledError:
            self.cancelled.append(one)
            raise
        return None if one in self.dead else self.named


def search(nodes, start, soft_timeout_s=INITIAL_S):
    return lookup.run(Shortlist(bytes(20)), start, nodes.ask, lambda _: soft_timeout_s)


def test_a_dead_node_costs_its_soft_timeout():
    async def scenario():
        began = asyncio.get_running_loop().time()
        contacts = [contact(rank) for rank in range(1, 31)]
        nodes = Nodes(dead=contacts[:6])
        closest = await search(nodes, contacts, 0.15)
        assert closest == contacts[6:14]
        late = [at - began for one, at in nodes.asked_at.items() if one not in contacts[:6]]
        assert min(late) == pytest.approx(0.15), "the dead had every slot until then"
        assert asyncio.get_running_loop().time() - began < 0.15 + 3 * RTT_S

    run(scenario())


def test_each_contact_has_a_timeout_of_its_own():
    async def scenario():
        contacts = [contact(rank) for rank in range(1, 31)]
        nodes = Nodes(dead=contacts[:6])
        shortlist = Shortlist(bytes(20))
        began = asyncio.get_running_loop().time()
        patience = {contacts[0]: 0.1, contacts[1]: 0.3}
        await lookup.run(shortlist, contacts, nodes.ask, lambda one: patience.get(one, 1.0))
        seventh, eighth = sorted(nodes.asked_at.values())[6:8]
        assert seventh - began == pytest.approx(0.1)
        assert eighth - began == pytest.approx(0.1 + RTT_S), "the free slot is used again"

    run(scenario())


def test_the_paths_have_so_many_queries_in_flight():
    async def scenario():
        contacts = [contact(rank) for rank in range(1, 31)]
        nodes = Nodes()
        task = asyncio.ensure_future(search(nodes, contacts))
        await asyncio.sleep(RTT_S / 2)
        assert len(nodes.asked_at) == PATHS * PATH_ALPHA
        await task

    run(scenario())


def test_with_nobody_alive_it_ends_at_the_hard_timeout():
    async def scenario():
        began = asyncio.get_running_loop().time()
        contacts = [contact(rank) for rank in range(1, 4)]
        assert await search(Nodes(dead=contacts), contacts) == []
        assert asyncio.get_running_loop().time() - began == pytest.approx(HARD_TIMEOUT_S)
        assert await search(Nodes(), []) == []

    run(scenario())


def test_inventions_without_end_end_at_the_deadline_at_the_latest():
    async def scenario():
        loop = asyncio.get_running_loop()
        began = loop.time()
        invented = iter(range(2**30, 0, -1))

        class Inventors(Nodes):
            async def _answer(self, one):
                await asyncio.sleep(1.0)
                return [contact(next(invented)) for _ in range(8)]

        def contact(number):
            return Contact(number.to_bytes(20, "big"), Endpoint("198.18.0.1", number % 65535 + 1))

        await search(Inventors(), [contact(2**31 + n) for n in range(20)], 1.0)
        assert loop.time() - began <= DEADLINE_S

    run(scenario())


def test_a_cancelled_lookup_leaves_its_queries_to_their_owner_and_nothing_else():
    async def scenario():
        contacts = [contact(rank) for rank in range(1, 31)]
        nodes = Nodes()
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(search(nodes, contacts))
        await asyncio.sleep(RTT_S / 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert nodes.cancelled == []
        asked = len(nodes.asked_at)
        await asyncio.sleep(2 * RTT_S)
        assert len(nodes.asked_at) == asked
        assert asyncio.all_tasks() == before

    run(scenario())


def test_the_first_verified_record_is_delivered_while_the_search_goes_on():
    async def scenario():
        net = Network(latency_s=RTT_S / 2)
        nodes = await net.grow(40)
        envelope = fake_envelope(KEY, 1, 1)
        assert await nodes[3].publish(KEY, envelope) == 8
        dead = [node for node in nodes[4:] if not node.stored][:15]
        for node in dead:
            net.handlers.pop(net.endpoint(nodes.index(node)))
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with aclosing(nodes[1].lookup(KEY)) as stream:
            assert await anext(stream) == envelope
            first_s = loop.time() - began
            assert [other async for other in stream] == []
        assert first_s < 2.5 * RTT_S
        assert loop.time() - began > first_s
        await net.close()

    run(scenario())


def test_the_soft_timeout_follows_the_round_trips_that_are_measured():
    async def scenario():
        timeouts = []
        for latency_s in (0.01, 0.04, 0.2):
            net = Network(latency_s=latency_s)
            nodes = await net.grow(12)
            await nodes[5].publish(KEY, fake_envelope(KEY, 1, 1))
            timeouts.append(nodes[5]._queries.round_trips.stranger_timeout_s)
            await net.close()
        assert timeouts[0] < INITIAL_S / 2
        assert 0.08 < timeouts[1] < INITIAL_S
        assert 0.4 < timeouts[2] <= 1.0

    run(scenario())
