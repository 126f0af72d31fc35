"""Ids bound to addresses, among whole directories: learning the own address, and what liars get out of it."""

import asyncio

from discovery_simulation import Network, fake_envelope, run
from test_kademlia import collect, hostile

from dhtvpn.discovery.contact import distance
from dhtvpn.discovery.node_ids import fits
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.wire import Rpc
from dhtvpn.endpoint import Endpoint

KEY = bytes(range(20))


def unbound(net, number, families=frozenset({4}), **options):
    """A node that does not know its address: behind a one-to-one NAT, as in a cloud."""
    return net.node(number, families=families, own=OwnIds(families, net.random.randbytes), **options)


def test_a_node_learns_its_address_from_others_and_takes_an_id_that_fits():
    async def scenario():
        net = Network()
        nodes = await net.grow(20)
        newcomer = unbound(net, 90)
        before = newcomer.node_id
        await newcomer.start([net.endpoint(0)])
        await asyncio.sleep(5)
        assert newcomer.own.address(4) == net.endpoint(90).host
        assert newcomer.node_id != before and fits(newcomer.node_id, net.endpoint(90).host)
        assert sum(node._table.knows(net.endpoint(90)) for node in nodes) >= 8
        await net.close()

    run(scenario())


def test_each_family_has_an_id_of_its_own():
    async def scenario():
        net = Network()
        both = frozenset({4, 6})
        nodes = [net.node(number, families=both) for number in range(12)]
        for node in nodes:
            await node.start([net.endpoint(0), net.endpoint(0, 6)])
        newcomer = unbound(net, 90, both)
        await newcomer.start([net.endpoint(0), net.endpoint(0, 6)])
        await asyncio.sleep(5)
        for family in (4, 6):
            host = net.endpoint(90, family).host
            assert newcomer.own.address(family) == host and fits(newcomer.own.of(family), host)
            assert any(node._table.get(newcomer.own.of(family), family) for node in nodes)
        await net.close()

    run(scenario())


def test_liars_with_one_network_do_not_move_our_id():
    """Every node of one /24 says that we are elsewhere, again and again."""

    async def scenario():
        net = Network()
        nodes = await net.grow(12)
        before = nodes[5].node_id
        wrong = Endpoint("198.51.100.1", 4690)
        for host in range(1, 250):
            nodes[5]._seen_as(wrong, Endpoint(f"203.0.113.{host}", 4690))
        assert nodes[5].node_id == before
        await net.close()

    run(scenario())


def test_a_new_address_costs_neither_the_table_nor_what_is_stored():
    async def scenario():
        net = Network()
        nodes = await net.grow(20)
        moved = nodes[3]
        moved.storage.put(KEY, fake_envelope(KEY, 1, 1), net.endpoint(1), net.unix_time())
        known, before = set(moved.contacts()), moved.node_id
        del net.handlers[net.endpoint(3)]
        new = net.endpoint(93)
        net.handlers[new] = moved.handle_datagram
        moved._port_send = net.sender(new)
        await moved.bootstrap([net.endpoint(number) for number in range(12) if number != 3])
        await asyncio.sleep(10)
        assert moved.own.address(4) == new.host
        assert moved.node_id != before and fits(moved.node_id, new.host)
        assert set(moved.contacts()) >= known
        assert moved.stored == 1
        assert any(node._table.get(moved.node_id, 4) for node in nodes)
        await net.close()

    run(scenario())


def test_who_has_chosen_his_id_is_not_followed_nor_stored_at():
    """Ten nodes at ids right beside the key, which do not fit their addresses, and tell of one another."""

    async def scenario():
        net = Network()
        nodes = await net.grow(20)
        chosen = [
            net.node(
                200 + number,
                own=OwnIds({4}, net.random.randbytes, ids={4: KEY[:19] + bytes([number])}),
                inspect=nodes[0]._inspect,
            )
            for number in range(10)
        ]
        for sybil in chosen:
            sybil.own.seen_as = lambda *_: None  # it keeps the id that it has chosen
            await sybil.start([net.endpoint(number) for number in range(20)])
        await asyncio.sleep(10)
        assert await nodes[4].publish(KEY, fake_envelope(KEY, 1, 1)) == 8
        assert sum(sybil.stored for sybil in chosen) == 0
        assert not any(node._table.knows(net.endpoint(200 + n)) for node in nodes for n in range(10))
        closest = sorted((n for n in nodes if n is not nodes[4]), key=lambda n: distance(n.node_id, KEY))[:8]
        assert all(node.stored for node in closest)
        assert len(await collect(nodes[9], KEY)) == 1
        await net.close()

    run(scenario())


def test_a_flooder_with_one_24_gets_two_places_in_a_bucket():
    """249 machines of one /24, ids that fit: in no table more than two in a bucket."""

    async def scenario():
        net = Network()
        nodes = await net.grow(12)
        crowd = []
        for host in range(2, 251):
            endpoint = Endpoint(f"198.18.77.{host}", 4690)
            own = OwnIds({4}, net.random.randbytes, addresses=[endpoint.host])
            crowd.append(net.node(1000 + host, endpoints={4: endpoint}, own=own))
            await crowd[-1].bootstrap([net.endpoint(number) for number in range(3)])
        await asyncio.sleep(10)
        for node in nodes:
            for bucket in node._table._tables[4].buckets._buckets:
                inside = [*bucket.nodes.values(), *bucket.replacement_nodes.values()]
                assert sum(one.ip.startswith("198.18.77.") for one in inside) <= 2
        assert await nodes[4].publish(KEY, fake_envelope(KEY, 1, 1)) == 8
        assert len(await collect(nodes[9], KEY)) == 1
        await net.close()

    run(scenario())


def test_a_network_of_one_node_whose_id_does_not_fit_still_works():
    """The only bootstrap node is behind a one-to-one NAT, and too few know it to tell it where it is."""

    async def scenario():
        net = Network()
        lonely = unbound(net, 0)
        await lonely.start()
        first, second = (net.node(n, behind_nat=True, read_only=True) for n in (1, 2))
        for member in (first, second):
            assert await member.start([net.endpoint(0)]) == 1
        assert not fits(lonely.node_id, net.endpoint(0).host)
        assert await first.publish(KEY, fake_envelope(KEY, 1, 1)) == 1
        assert len(await collect(second, KEY)) == 1
        await net.close()

    run(scenario())


def test_a_dead_contact_is_found_out_before_others_are_told():
    """Unheard of for an hour, it is pinged as soon as somebody should be told about it."""

    async def scenario():
        net = Network()
        nodes = await net.grow(12)
        nodes[0]._maintenance.cancel()  # nothing but the asking checks it
        await asyncio.sleep(3600)
        gone = nodes[7]
        await gone.close()
        for _ in range(3):
            for asker in nodes[1:4]:
                await asker._queries.ask(net.endpoint(0), Rpc.FIND_NODE, gone.node_id)
            await asyncio.sleep(30)
        answer = await nodes[5]._queries.ask(net.endpoint(0), Rpc.FIND_NODE, gone.node_id)
        assert net.endpoint(7) not in {contact.endpoint for contact in answer.reply.contacts}
        assert len(answer.reply.contacts) == 8
        await net.close()

    run(scenario())


def test_hostile_nodes_that_all_lie_about_our_address():
    """As many liars as honest nodes, of different prefixes: the id moves at most to what they say, and back,
    once in a while; lookups go on all the time."""

    async def scenario():
        net = Network()
        nodes = await net.grow(16)
        bad = [hostile(net, 100 + number, "lies") for number in range(8)]
        await nodes[5].bootstrap(bad)
        await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1))
        for _ in range(5):
            assert len(await collect(nodes[5], KEY)) == 1
            await asyncio.sleep(60)
        assert fits(nodes[5].node_id, net.endpoint(5).host)
        await net.close()

    run(scenario())
