"""Defects of kademlia 2.2.3 and rpcudp 5.0.1 that this package must not have, one test each."""

import asyncio
import inspect as python_inspect
import pkgutil
import socket
from contextlib import aclosing
from importlib import import_module

from discovery_simulation import Network, fake_envelope, run, writer_of
from test_kademlia import collect, hostile

import dhtvpn.discovery
from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.node_ids import bound_id
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.wire import (
    Flags,
    Reply,
    Request,
    Rpc,
    decode_request,
    encode_reply,
    encode_request,
    frame,
    split,
)
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.demux import DHT_PREFIX, Kind, classify
from dhtvpn.nat.port import UdpPort

KEY = bytes(range(20))


def in_network(count, scenario, seed=1):
    async def whole():
        net = Network(seed=seed)
        nodes = await net.grow(count)
        await scenario(net, nodes)
        await net.close()

    run(whole())


def test_table_traverser_stops_early_and_lookups_start_short():
    """200 nodes: every lookup starts with as many contacts as the table can give, and finds the record."""

    async def scenario(net, nodes):
        for node in nodes:
            known = len(node._table)
            for _ in range(20):
                assert len(node._table.find_neighbors(net.random.randbytes(20), 8, 4)) == min(8, known)
        for trial in range(20):
            key = net.random.randbytes(20)
            assert await nodes[trial].publish(key, fake_envelope(key, 1, 1)) == 8
            assert len(await collect(nodes[-1 - trial], key)) == 1

    in_network(200, scenario)


def test_get_trusts_the_first_value():
    """Hostile nodes answer every lookup of an absent key with fakes: nothing comes out, nothing is stored."""

    async def scenario(net, nodes):
        bad = [hostile(net, 100 + number, "fakes") for number in range(3)]
        for node in nodes:
            await node.bootstrap(bad)
        for _ in range(30):
            assert await collect(nodes[5], net.random.randbytes(20)) == []
        assert sum(node.stored for node in nodes) == 0
        assert nodes[5]._drops.as_dict()["record.signature"] > 0

    in_network(27, scenario)


def test_a_malformed_reply_kills_the_lookup():
    async def scenario(net, nodes):
        bad = [hostile(net, 100 + number, "malformed") for number in range(3)]
        await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1))
        for node in nodes:
            await node.bootstrap(bad)
        assert len(await collect(nodes[5], KEY)) == 1

    in_network(12, scenario)


def test_store_accepts_anything_from_anyone():
    async def scenario(net, nodes):
        stranger = net.node(90)
        for envelope in (b"", b"x" * 900, fake_envelope(bytes(20), 1, 1), fake_envelope(KEY, 1, 1, -5)):
            for _ in range(2):  # the second time with a valid token
                await stranger._queries.ask(net.endpoint(0), Rpc.STORE, KEY, envelope)
        assert nodes[0].stored == 0

    in_network(2, scenario)


def test_holders_republish_and_nothing_ever_expires():
    """Nobody sends a store but the publisher, and what is not renewed is gone at its signed expiry."""

    async def scenario(net, nodes):
        await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1, expires_in=4000))
        net.log.clear()
        await asyncio.sleep(3600)
        assert not any(b"\xa5store" in data for _, _, data in net.log)
        assert sum(node.stored for node in nodes) > 0
        await asyncio.sleep(500)
        assert sum(node.stored for node in nodes) == 0

    in_network(12, scenario)


def test_a_stale_holder_rolls_a_newer_value_back():
    async def scenario(net, nodes):
        old, new = fake_envelope(KEY, 1, 1), fake_envelope(KEY, 1, 2)
        await nodes[1].publish(KEY, old)
        await nodes[1].publish(KEY, new)
        assert await nodes[2].publish(KEY, old) == 0
        for node in nodes:
            assert await collect(node, KEY) == [new]

    in_network(8, scenario)  # so that all eight hold it


def test_dead_nodes_cost_five_seconds_each():
    """30% dead: a lookup costs the soft timeout a few times at worst, not seconds per round."""

    async def scenario(net, nodes):
        loop = asyncio.get_running_loop()
        for number in range(1, 40, 3):
            del net.handlers[net.endpoint(number)]
        durations = []
        for trial in range(20):
            key = net.random.randbytes(20)
            start = loop.time()
            await collect(nodes[3 * (trial % 13)], key)
            durations.append(loop.time() - start)
        durations.sort()
        assert durations[10] < 0.6
        assert durations[18] < 1.1

    in_network(40, scenario)


def test_set_is_true_when_every_store_failed():
    async def scenario(net, nodes):
        net.loss = 1.0
        assert await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1)) == 0

    in_network(5, scenario)


def test_max_of_an_empty_list_when_the_only_neighbour_is_dead():
    async def scenario(net, nodes):
        del net.handlers[net.endpoint(0)]
        assert await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1)) == 0
        assert await collect(nodes[1], bytes(20)) == []

    in_network(2, scenario)


def test_a_cancelled_request_leaks():
    async def scenario(net, nodes):
        net.loss = 1.0
        task = asyncio.ensure_future(nodes[1].publish(KEY, fake_envelope(KEY, 1, 1)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(3)
        assert len(nodes[1]._requests) == 0
        assert len(nodes[1]._tasks) == 1, "only the upkeep is left"

    in_network(5, scenario)


def test_tasks_are_nobodys():
    """Handling a datagram makes no task, except one ping for a stranger, and those are capped."""

    async def scenario(net, nodes):
        before = len(asyncio.all_tasks())
        requests = [data for _, to, data in net.log if to == net.endpoint(0) and data[:1] == b"\0"]
        assert requests
        for port in range(1, 200):
            nodes[0].handle_datagram(requests[0], net.endpoint(1)._replace(port=port))
        assert len(asyncio.all_tasks()) - before <= 32

    in_network(4, scenario)


def test_the_address_of_a_known_id_is_never_refreshed():
    """A NAT gives a node another port: the others learn it from its answer to their own question."""

    async def scenario(net, nodes):
        old, new = net.endpoint(2), net.endpoint(77)
        net.handlers[new] = net.handlers.pop(old)
        moved = nodes[2]
        moved._port_send = net.sender(new)
        for _ in range(4):
            async with aclosing(moved.watch(KEY)):
                await asyncio.sleep(1)
            await collect(moved, KEY)
            await collect(nodes[1], moved.node_id)
            await asyncio.sleep(20)
        assert nodes[1]._table.get(moved.node_id, 4).contact.endpoint == new

    in_network(5, scenario)


def test_the_state_file_is_a_pickle():
    for module in pkgutil.iter_modules(dhtvpn.discovery.__path__):
        source = python_inspect.getsource(import_module(f"dhtvpn.discovery.{module.name}"))
        assert "pickle" not in source


def test_a_topic_has_one_value():
    async def scenario(net, nodes):
        for writer in range(5):
            await nodes[writer].publish(KEY, fake_envelope(KEY, writer, 1))
        assert len({writer_of(envelope) for envelope in await collect(nodes[7], KEY)}) == 5

    in_network(10, scenario)


def test_mapped_addresses_are_contacts_of_a_v6_socket():
    drops = Drops()

    async def scenario(net, nodes):
        node = net.node(50, families=frozenset({6}), drops=drops)
        assert await node.bootstrap([net.endpoint(0)]) == 0
        assert node.contacts() == []

    in_network(2, scenario)


def test_a_reply_may_come_from_anywhere():
    """A stranger that guesses nothing but sees the message id answers first, from an address of its own."""

    async def scenario(net, nodes):
        stranger = net.endpoint(90)
        honest = net.handlers[net.endpoint(0)]

        def overtaken(data, source):
            if data[:1] == b"\0":
                _, message_id, _ = split(data)
                lie = Reply(bound_id(stranger.host, net.random.randbytes), b"", unix_time=1)
                nodes[1].handle_datagram(encode_reply(message_id, Rpc.PING, lie), stranger)
            honest(data, source)

        net.handlers[net.endpoint(0)] = overtaken
        (offset,) = await nodes[1].ask_time([net.endpoint(0)])
        assert abs(offset) < 2
        assert not nodes[1]._table.knows(stranger)
        assert nodes[1]._drops.as_dict()["dht.reply_source"] == 1

    in_network(3, scenario)


def test_a_node_id_is_whatever_its_owner_says():
    """Right beside the key, and not at the address that this id would need: not stored at, not in a table."""

    async def scenario(net, nodes):
        own = OwnIds({4}, net.random.randbytes, ids={4: KEY})
        own.seen_as = lambda *_: None
        chosen = net.node(90, own=own)
        await chosen.start([net.endpoint(number) for number in range(12)])
        assert await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1)) == 8
        assert chosen.stored == 0
        assert not any(node._table.knows(net.endpoint(90)) for node in nodes)

    in_network(12, scenario)


def test_any_address_in_a_reply_is_followed():
    """A hostile node sends us to our own machine, our own network, and addresses that nobody can have."""

    async def scenario(net, nodes):
        bad = net.endpoint(90)
        hosts = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "224.0.0.1", "0.0.0.0"]
        told = tuple(Contact(KEY[:19] + bytes([n]), Endpoint(host, 53)) for n, host in enumerate(hosts))

        def answer(data, source):
            kind, message_id, body = split(data)
            if kind == 0:
                rpc = decode_request(body).rpc
                reply = Reply(bound_id(bad.host, bytes), bytes(8), told, seen=source)
                net.carry(encode_reply(message_id, rpc, reply), bad, source)

        net.handlers[bad] = answer
        await nodes[1].bootstrap([bad])
        await collect(nodes[1], KEY)
        assert nodes[1]._table.knows(bad)
        assert not {to.host for _, to, _ in net.log} & set(hosts)

    in_network(4, scenario)


def test_find_node_is_answered_at_ten_times_its_length():
    """The shortest request that asks for the most, from an address that is not proven."""

    async def scenario(net, nodes):
        victim = Endpoint("203.0.113.5", 53)
        flags = Flags.WANT_IPV4 | Flags.WANT_IPV6 | Flags.READ_ONLY
        whole = encode_request(bytes(20), Request(Rpc.FIND_NODE, b"Q" * 20, b"", flags, KEY))
        short = frame(0, bytes(20), ["find_node", [b"Q" * 20, b"", int(flags), KEY, b""]])
        assert len(short) < 100 < len(whole)
        for request in (short, whole):
            net.log.clear()
            nodes[0].handle_datagram(request, victim)
            await asyncio.sleep(10)
            sent = [data for _, to, data in net.log if to == victim]
            assert sum(map(len, sent)) <= 3 * len(request)

    in_network(20, scenario)


async def test_datagrams_begin_like_those_of_others_on_the_port():
    """Kind 0 and 1 are first octets of STUN and WireGuard too: DHT datagrams have the prefix in front."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setblocking(False)
    receiver.bind(("127.0.0.1", 0))
    port = await UdpPort.open(None, "127.0.0.1", None, drops=Drops(), tunnel_sockets=False)
    directory = KademliaDirectory(port.send_dht, families=frozenset({4}))
    try:
        asking = asyncio.ensure_future(directory.bootstrap([Endpoint(*receiver.getsockname())]))
        data = await asyncio.get_running_loop().sock_recv(receiver, 2000)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    finally:
        await directory.close()
        port.close()
        receiver.close()
    assert data[0] == DHT_PREFIX
    assert classify(data) is Kind.DHT
    assert {classify(bytes([kind]) + data[2:]) for kind in (0, 1)} & {Kind.DHT} == set()
