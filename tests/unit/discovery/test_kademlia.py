"""The Kademlia directory in simulated networks: NATs, losses, dead and hostile nodes, both families."""

import asyncio
import logging
import statistics
from contextlib import aclosing

import pytest
from discovery_simulation import Network, fake_envelope, run, writer_of

from dhtvpn.discovery.contact import Contact, distance
from dhtvpn.discovery.kademlia import MAX_CLOCKS
from dhtvpn.discovery.node_ids import bound_id
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.wire import (
    KIND_REQUEST,
    Reply,
    Rpc,
    Status,
    decode_request,
    encode_reply,
    encode_value,
    frame,
    split,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

KEY = bytes(range(20))


async def collect(directory, key):
    async with aclosing(directory.lookup(key)) as stream:
        return [envelope async for envelope in stream]


def hostile(net, number, style):
    """A node that answers every request in its own way."""
    own = net.endpoint(number)
    send = net.sender(own)
    node_id = bound_id(own.host, net.random.randbytes)

    def handle(data, source):
        try:
            kind, message_id, body = split(data)
            request = decode_request(body)
        except DecodeError:
            return
        if kind != KIND_REQUEST or style == "silent":
            return
        if style == "malformed" and request.rpc is not Rpc.PING:
            send(frame(1, message_id, [[1, 2], "x", -1]), source)
            return
        base = {"node_id": node_id, "token": bytes(8)}
        if style == "lies":
            lie = Endpoint("198.51.100.66", 4690)
            send(encode_reply(message_id, request.rpc, Reply(**base, seen=lie)), source)
            return
        if request.rpc is Rpc.FIND:
            close = request.target[:10]
            invented = tuple(
                Contact(close + net.random.randbytes(10), net.endpoint(5000 + net.random.randrange(500)))
                for _ in range(8)
            )
            fakes = [fake_envelope(request.target, 1, 10**9)[:50] + net.random.randbytes(300), b"rubbish"]
            send(encode_reply(message_id, request.rpc, Reply(**base, contacts=invented, values=2)), source)
            for fake in fakes:
                send(encode_value(message_id, fake), source)
            return
        send(encode_reply(message_id, request.rpc, Reply(**base, status=Status.OK, lease_s=60)), source)

    net.handlers[own] = handle
    return own


def test_lone_node_looks_up_at_once_and_stores_locally():
    async def scenario():
        net = Network()
        node = net.node(0)
        start = asyncio.get_running_loop().time()
        assert await collect(node, KEY) == []
        assert await node.publish(KEY, fake_envelope(KEY, 1, 1)) == 0, "nobody else confirmed"
        assert len(await collect(node, KEY)) == 1
        assert asyncio.get_running_loop().time() == start
        assert node.stored == 1
        await node.close()

    run(scenario())


def test_bootstrap_is_usable_after_one_round_trip():
    async def scenario():
        net = Network(latency_s=0.02)
        await net.grow(8)
        late = net.node(50)
        start = asyncio.get_running_loop().time()
        assert await late.bootstrap([net.endpoint(0)]) == 1
        assert asyncio.get_running_loop().time() - start < 0.05
        assert await late.publish(KEY, fake_envelope(KEY, 1, 1)) == 8
        await net.close()

    run(scenario())


def test_bootstrap_with_dead_endpoints_counts_the_living():
    async def scenario():
        net = Network()
        await net.grow(3)
        node = net.node(50)
        dead = [net.endpoint(900 + number) for number in range(40)]
        start = asyncio.get_running_loop().time()
        assert await node.bootstrap([*dead, net.endpoint(0), net.endpoint(1)]) == 2
        assert asyncio.get_running_loop().time() - start < 1.0
        assert await node.bootstrap(dead[:3]) == 0
        await net.close()

    run(scenario())


@pytest.mark.parametrize("latency_s", [0.0, 0.02, 0.4])
def test_members_behind_nats_meet_through_one_bootstrap_node(latency_s):
    """The second member's record reaches the first in one trip to the bootstrap node and one on."""

    async def scenario():
        loop = asyncio.get_running_loop()
        net = Network(latency_s=latency_s)
        volunteer = net.node(0)
        await volunteer.start()
        first = net.node(1, behind_nat=True)
        await first.start([net.endpoint(0)])
        async with aclosing(first.watch(KEY)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(60)
            second = net.node(2, behind_nat=True)
            await second.start([net.endpoint(0)])
            arrivals = []
            inspect = volunteer._storage.put

            def noting(key, envelope, source, unix_time):
                arrivals.append(loop.time())
                return inspect(key, envelope, source, unix_time)

            volunteer._storage.put = noting
            assert await second.publish(KEY, fake_envelope(KEY, 2, 1)) >= 1
            assert writer_of(await waiting) == writer_of(fake_envelope(KEY, 2, 1))
            assert loop.time() - arrivals[0] <= 3 * latency_s + 0.3
        assert len(await collect(second, KEY)) == 1
        await net.close()

    run(scenario())


def test_watch_started_before_there_are_contacts_still_hears():
    async def scenario():
        net = Network()
        await net.grow(3)
        node = net.node(10)
        async with aclosing(node.watch(KEY)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(3)
            await node.bootstrap([net.endpoint(0)])
            await asyncio.sleep(1)
            await net.directories[2].publish(KEY, fake_envelope(KEY, 1, 1))
            await asyncio.wait_for(waiting, 1)
        await net.close()

    run(scenario())


def test_a_lost_push_is_made_good_by_the_renewal():
    async def scenario():
        net = Network()
        volunteer, watcher, writer = await net.grow(3)
        async with aclosing(watcher.watch(KEY)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(1)
            handle = net.handlers.pop(net.endpoint(1))
            await writer.publish(KEY, fake_envelope(KEY, 1, 1))
            await asyncio.sleep(3)
            assert not waiting.done()
            net.handlers[net.endpoint(1)] = handle
            await asyncio.wait_for(waiting, 31)
        assert volunteer.stored == 1
        await net.close()

    run(scenario())


def test_subscriptions_survive_hours():
    async def scenario():
        net = Network()
        nodes = await net.grow(4)
        async with aclosing(nodes[1].watch(KEY)) as stream:
            for sequence in range(1, 6):
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(1200)
                await nodes[2].publish(KEY, fake_envelope(KEY, 1, sequence, expires_in=20000))
                assert writer_of(await asyncio.wait_for(waiting, 1))[1] == sequence
        await net.close()

    run(scenario())


def test_dead_and_hostile_nodes_do_not_stop_the_directory():
    """60 nodes, 30% dead, 10% hostile: every absent key stays absent, every present one is found fast."""

    async def scenario():
        loop = asyncio.get_running_loop()
        net = Network(seed=7)
        bad = [hostile(net, 100 + i, style) for i, style in enumerate(("fakes", "malformed", "silent") * 2)]
        nodes = await net.grow(54)
        for node in nodes:
            await node.bootstrap(bad)
        await asyncio.sleep(5)
        for number in range(1, 54, 3):
            del net.handlers[net.endpoint(number)]
        living = [nodes[number] for number in range(54) if number % 3 != 1]
        durations, stores = [], []
        for trial in range(30):
            key = net.random.randbytes(20)
            start = loop.time()
            stores.append(await living[trial].publish(key, fake_envelope(key, 1, 1)))
            durations.append(loop.time() - start)
            start = loop.time()
            found = await collect(living[-1 - trial], key)
            durations.append(loop.time() - start)
            assert found == [fake_envelope(key, 1, 1)]
            assert await collect(living[trial], net.random.randbytes(20)) == []
        durations.sort()
        assert min(stores) >= 4
        assert statistics.median(durations) < 0.6
        assert durations[-1] < 5
        await net.close()

    run(scenario())


def test_works_with_a_tenth_of_the_datagrams_lost():
    async def scenario():
        net = Network(seed=3)
        nodes = await net.grow(20)
        net.loss = 0.1
        for trial in range(10):
            key = net.random.randbytes(20)
            assert await nodes[trial].publish(key, fake_envelope(key, 1, 1)) >= 5
            assert len(await collect(nodes[19 - trial], key)) == 1
        await net.close()

    run(scenario())


@pytest.mark.parametrize(
    ("loss", "seed"), [(0.0, 1), *((0.02, seed) for seed in range(1, 7))], ids=lambda value: f"{value:g}"
)
def test_the_records_of_sixty_four_members_come_whole_from_one_node(loss, seed):
    """Each is as long as the longest there is, and 64 are more than one answer brings: it asks again."""

    async def scenario():
        net = Network(seed=seed, loss=loss)
        (keeper,) = await net.grow(1)
        written = [fake_envelope(KEY, writer, 1, size=877) for writer in range(64)]
        for number, envelope in enumerate(written):
            keeper._storage.put(KEY, envelope, net.endpoint(100 + number), net.unix_time())
        assert keeper.stored == 64
        reader = net.node(1, read_only=True)
        assert await reader.bootstrap([net.endpoint(0)]) == 1
        found = await collect(reader, KEY)
        assert sorted(found) == sorted(written)
        asked = [data for source, _, data in net.log if source == net.endpoint(1)]
        rounds = [data for data in asked if decode_request(split(data)[2]).rpc is Rpc.FIND]
        assert len(rounds) >= 2
        await net.close()

    run(scenario())


def test_the_closest_living_nodes_hold_the_record():
    async def scenario():
        net = Network()
        nodes = await net.grow(60)
        await nodes[5].publish(KEY, fake_envelope(KEY, 1, 1))
        closest = sorted(nodes, key=lambda node: distance(node.node_id, KEY))[:8]
        assert sum(node.stored for node in closest) >= 7
        await net.close()

    run(scenario())


def test_two_families_are_bridged_by_nodes_that_speak_both():
    async def scenario():
        net = Network()
        both = [net.node(number, families=frozenset({4, 6})) for number in range(6)]
        for node in both:
            await node.start([net.endpoint(0), net.endpoint(0, 6)])
        await asyncio.sleep(5)
        four, six = net.node(20, families=frozenset({4})), net.node(21, families=frozenset({6}))
        await four.start([net.endpoint(1), net.endpoint(1, 6)])
        await six.start([net.endpoint(2), net.endpoint(2, 6)])
        assert await four.publish(KEY, fake_envelope(KEY, 1, 1)) >= 5
        assert len(await collect(six, KEY)) == 1
        assert all(endpoint.is_ipv6 for endpoint in six.contacts())
        assert not any(endpoint.is_ipv6 for endpoint in four.contacts())
        assert any(endpoint.is_ipv6 for endpoint in both[0].contacts())
        assert {e.is_ipv6 for e in both[0].contacts()} == {False, True}
        await net.close()

    run(scenario())


def test_a_dead_node_is_dropped_and_not_handed_on():
    async def scenario():
        net = Network()
        nodes = await net.grow(5)
        assert net.endpoint(3) in nodes[1].contacts()
        del net.handlers[net.endpoint(3)]
        for _ in range(3):
            await collect(nodes[1], KEY)
            await asyncio.sleep(3)
        assert net.endpoint(3) not in nodes[1].contacts()
        assert nodes[1]._table.get(nodes[3].node_id, 4) is None
        await net.close()

    run(scenario())


def test_our_own_outage_does_not_empty_the_table():
    async def scenario():
        net = Network()
        nodes = await net.grow(6)
        before = nodes[1]._table.get(nodes[2].node_id, 4)
        assert before is not None
        net.loss = 1.0
        for _ in range(6):
            await asyncio.sleep(15)
            await collect(nodes[1], KEY)
        net.loss = 0.0
        assert nodes[1].size == 0
        await collect(nodes[1], KEY)
        assert nodes[1].size >= 5
        await net.close()

    run(scenario())


def test_a_read_only_node_enters_no_table_but_publishes_and_watches():
    async def scenario():
        net = Network()
        nodes = await net.grow(4)
        shy = net.node(9, read_only=True)
        await shy.start([net.endpoint(0)])
        assert await shy.publish(KEY, fake_envelope(KEY, 1, 1)) >= 4
        await asyncio.sleep(30)
        assert all(net.endpoint(9) not in node.contacts() for node in nodes)
        await net.close()

    run(scenario())


def test_the_read_only_flag_may_change_while_a_node_runs():
    async def scenario():
        net = Network()
        nodes = await net.grow(4)
        shy = net.node(9, read_only=True)
        await shy.start([net.endpoint(0)])
        await asyncio.sleep(30)
        assert net.endpoint(9) not in nodes[0].contacts()
        shy.read_only = False
        assert await shy.publish(KEY, fake_envelope(KEY, 1, 1)) >= 4
        await asyncio.sleep(5)
        assert net.endpoint(9) in nodes[0].contacts()
        await net.close()

    run(scenario())


def test_clocks_are_asked_of_a_few_and_the_silent_left_out():
    async def scenario():
        net = Network()
        late = net.node(0, unix_time=lambda: net.unix_time() - 5 * 3600)
        for number in (1, 2):
            await net.node(number).start()
        for number, ahead_s in ((3, 7200), (4, -60), (5, 0)):
            net.node(number, unix_time=lambda ahead_s=ahead_s: net.unix_time() + ahead_s)
        del net.handlers[net.endpoint(2)]
        asked = [net.endpoint(number) for number in (1, 2, 1, 3, 4, 5)]
        offsets = await late.ask_time(asked)
        expected = [5 * 3600, 7 * 3600, 5 * 3600 - 60, 5 * 3600]
        assert all(abs(seen - true) <= 1.1 for seen, true in zip(offsets, expected, strict=True))
        net.log.clear()
        await late.ask_time(net.endpoint(number) for number in range(10, 30))
        assert {to for source, to, _ in net.log if source == net.endpoint(0)} == {
            net.endpoint(number) for number in range(10, 10 + MAX_CLOCKS)
        }
        assert await late.ask_time([]) == []
        await net.close()

    run(scenario())


def test_an_impostor_does_not_take_the_place_of_a_living_contact():
    async def scenario():
        net = Network()
        nodes = await net.grow(4)
        victim = nodes[2]
        other = net.endpoint(2)._replace(port=9)  # where the same id fits: another machine behind that NAT
        own = OwnIds({4}, net.random.randbytes, ids={4: victim.node_id})
        net.node(30, endpoints={4: other}, own=own)
        await nodes[1].bootstrap([other])
        await asyncio.sleep(5)
        assert nodes[1]._table.get(victim.node_id, 4).contact.endpoint == net.endpoint(2)
        del net.handlers[net.endpoint(2)]  # it moved: the old port is silent, so the new one is taken
        for _ in range(3):
            await nodes[1].bootstrap([other])
            await asyncio.sleep(5)
        assert nodes[1]._table.get(victim.node_id, 4).contact.endpoint == other
        await net.close()

    run(scenario())


def test_pushes_of_strangers_are_refused():
    async def scenario():
        net = Network()
        nodes = await net.grow(3)
        stranger = net.node(30)
        async with aclosing(nodes[1].watch(KEY)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(1)
            pushed = await stranger._queries.push(net.endpoint(1), KEY, fake_envelope(KEY, 1, 1))
            assert not pushed
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert nodes[1]._drops.as_dict()["dht.push_unsubscribed"] == 1
        await net.close()

    run(scenario())


def test_close_leaves_nothing_behind(caplog):
    async def scenario():
        net = Network()
        nodes = await net.grow(5)
        watch = nodes[1].watch(KEY)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.001)
        publishing = asyncio.ensure_future(nodes[2].publish(KEY, fake_envelope(KEY, 1, 1)))
        await asyncio.sleep(0.001)
        for node in nodes:
            await node.close()
        with pytest.raises((StopAsyncIteration, asyncio.CancelledError)):
            await waiting
        await asyncio.gather(publishing, return_exceptions=True)
        await watch.aclose()
        assert all(len(node._tasks) == 0 and len(node._requests) == 0 for node in nodes)
        await asyncio.sleep(5)
        assert asyncio.all_tasks() == {asyncio.current_task()} or len(asyncio.all_tasks()) <= 2

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert not caplog.records


def test_a_quiet_watching_node_costs_little():
    """Idle traffic of a watching node: under 1 kbyte/s."""

    async def scenario():
        net = Network()
        nodes = await net.grow(30)
        for writer in range(8):
            await nodes[writer].publish(KEY, fake_envelope(KEY, writer, 1, expires_in=20000))
        watches = [node.watch(KEY) for node in nodes[:8]]
        for watch in watches:
            await anext(watch)
        await asyncio.sleep(60)
        net.log.clear()
        await asyncio.sleep(600)
        mine = [len(d) for source, to, d in net.log if Endpoint("198.18.0.2", 4690) in (source, to)]
        assert sum(mine) / 600 < 1000
        for watch in watches:
            await watch.aclose()
        await net.close()

    run(scenario())
