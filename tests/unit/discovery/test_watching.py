"""Watches: where they subscribe, how they renew, and that nothing falls between two leases."""

import asyncio

import pytest
from discovery_simulation import Network, fake_envelope, run, writer_of

from dhtvpn.discovery import pushing
from dhtvpn.discovery.subscriptions import LEASE_S
from dhtvpn.discovery.watching import RENEW_S, WATCHED
from dhtvpn.discovery.wire import (
    HEADER_LENGTH,
    KIND_REQUEST,
    RENEWAL,
    Request,
    Rpc,
    decode_request,
    encode_request,
)
from dhtvpn.errors import DecodeError

KEY = bytes(range(20))


def requests(net, source, since=0):
    """(destination, request) of everything that the node at ``source`` has asked."""
    return [
        (to, decode_request(data[HEADER_LENGTH:]))
        for sender, to, data in net.log[since:]
        if sender == source and data[0] == KIND_REQUEST
    ]


async def next_of(watch, timeout_s=1.0):
    return writer_of(await asyncio.wait_for(anext(watch), timeout_s))[1]


def test_a_renewal_passes_the_codec_in_a_watch_alone():
    for rpc in (Rpc.WATCH, Rpc.FIND):
        request = Request(rpc, b"i" * 20, b"t" * 8, target=KEY, payload=RENEWAL)
        body = encode_request(b"m" * 20, request)[HEADER_LENGTH:]
        if rpc is Rpc.WATCH:
            assert decode_request(body) == request
            assert len(body) + HEADER_LENGTH <= 92, "what a member at rest sends all the time"
        else:
            with pytest.raises(DecodeError, match="have"):
                decode_request(body)


def test_a_watch_keeps_leases_at_the_closest_nodes_with_one_small_datagram_each():
    async def scenario():
        net = Network()
        nodes = await net.grow(20)
        await nodes[0].publish(KEY, fake_envelope(KEY, 1, 1, expires_in=20000))
        reader = net.node(100, behind_nat=True, read_only=True)
        await reader.start([net.endpoint(0)])
        watch = reader.watch(KEY)
        assert await next_of(watch) == 1
        await asyncio.sleep(5)
        begun = len(net.log)
        await asyncio.sleep(4 * RENEW_S)
        renewals = [(to, r) for to, r in requests(net, net.endpoint(100), begun) if r.rpc is Rpc.WATCH]
        assert len(renewals) == 4 * WATCHED
        assert all(request.payload == RENEWAL for _, request in renewals)
        by_distance = sorted(
            nodes, key=lambda n: int.from_bytes(n.node_id, "big") ^ int.from_bytes(KEY, "big")
        )
        closest = {net.endpoint(nodes.index(node)) for node in by_distance[:WATCHED]}
        assert {to for to, _ in renewals} == closest
        # The storing nodes that are subscribed to die one after the other: others take their place.
        for sequence, dead in enumerate(closest, 2):
            del net.handlers[dead]
            await asyncio.sleep(LEASE_S)
            await nodes[0].publish(KEY, fake_envelope(KEY, 1, sequence, expires_in=20000))
            assert await next_of(watch) == sequence
        await watch.aclose()
        await net.close()

    run(scenario())


def test_what_came_while_a_lease_had_ended_is_asked_for_at_the_next_renewal():
    """The storing node forgets its watchers, as after a restart."""

    async def scenario():
        net = Network()
        storing, writer, reader = net.node(0), net.node(1), net.node(2)
        for node in (storing, writer, reader):
            await node.start([net.endpoint(0)])
        await writer.publish(KEY, fake_envelope(KEY, 1, 1))
        watch = reader.watch(KEY)
        assert await next_of(watch) == 1
        await asyncio.sleep(1)
        for node in (storing, writer):
            node._subscriptions.drop(KEY, net.endpoint(2))
        await storing.publish(KEY, fake_envelope(KEY, 1, 2))
        assert await next_of(watch, RENEW_S + 1) == 2
        await watch.aclose()
        await net.close()

    run(scenario())


def test_a_watcher_whose_push_had_to_be_left_out_gets_it_with_the_renewal(monkeypatch):
    async def scenario():
        net = Network()
        nodes = [net.node(number, read_only=number == 2) for number in range(3)]
        for node in nodes:
            await node.start([net.endpoint(0)])
        watch = nodes[2].watch(KEY)
        waiting = asyncio.create_task(next_of(watch, 2 * RENEW_S))
        await asyncio.sleep(5)
        monkeypatch.setattr(pushing, "MAX_PUSHES", 0)
        await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1))
        await asyncio.sleep(1)
        assert not waiting.done()
        assert nodes[0]._drops.as_dict()["dht.pushes_full"] == 1
        assert await waiting == 1
        await watch.aclose()
        await net.close()

    run(scenario())


def test_a_read_only_watcher_that_answers_pushes_enters_no_table():
    async def scenario():
        net = Network()
        nodes = await net.grow(10)
        reader = net.node(100, behind_nat=True, read_only=True)
        await reader.start([net.endpoint(0)])
        watch = reader.watch(KEY)
        for sequence in (1, 2, 3):
            await nodes[3].publish(KEY, fake_envelope(KEY, 1, sequence))
            assert await next_of(watch) == sequence
        assert not any(node._table.knows(net.endpoint(100)) for node in nodes)
        await watch.aclose()
        await net.close()

    run(scenario())


def test_a_push_is_repeated_while_the_watcher_cannot_hear():
    """Its port is flooded for some seconds: it hears of the change right after, not with its next renewal."""

    async def scenario():
        net = Network()
        nodes = [net.node(number, read_only=number == 2) for number in range(3)]
        for node in nodes:
            await node.start([net.endpoint(0)])
        watch = nodes[2].watch(KEY)
        waiting = asyncio.create_task(next_of(watch, 2 * RENEW_S))
        await asyncio.sleep(RENEW_S + 5)  # the next renewal is 20 s away
        deaf = net.handlers.pop(net.endpoint(2))
        await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1))
        await asyncio.sleep(3)
        net.handlers[net.endpoint(2)] = deaf
        await asyncio.sleep(2)
        assert waiting.done()
        assert waiting.result() == 1
        await watch.aclose()
        await net.close()

    run(scenario())


def test_a_watcher_that_answers_no_push_is_forgotten():
    async def scenario():
        net = Network()
        nodes = [net.node(number, read_only=number == 2) for number in range(3)]
        for node in nodes:
            await node.start([net.endpoint(0)])
        watch = nodes[2].watch(KEY)
        waiting = asyncio.create_task(next_of(watch, 2 * RENEW_S))
        await asyncio.sleep(5)
        del net.handlers[net.endpoint(2)]
        begun = len(net.log)
        await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1))
        await asyncio.sleep(15)
        pushes = [to for to, request in requests(net, net.endpoint(0), begun) if request.rpc is Rpc.PUSH]
        assert pushes == [net.endpoint(2)] * 2 * pushing.ATTEMPTS
        assert not nodes[0].subscriptions.holds(KEY, net.endpoint(2), asyncio.get_running_loop().time())
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await watch.aclose()
        await net.close()

    run(scenario())
