"""Requests in flight: who may answer, retransmission, timeouts, cancellation, caps."""

import asyncio
from itertools import count

from discovery_simulation import run

from dhtvpn.discovery.rpc import HARD_TIMEOUT_S, MAX_OUTSTANDING, RETRANSMIT_S, VALUES_PATIENCE_S, Requests
from dhtvpn.discovery.wire import HEADER_LENGTH, Reply, Request, Rpc, encode_reply, encode_value, frame, split
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint

PEER, OTHER = Endpoint("198.18.0.1", 1), Endpoint("198.18.0.1", 2)
REQUEST = Request(Rpc.PING, b"I" * 20)
FIND = Request(Rpc.FIND, b"I" * 20, b"", target=bytes(20))
REPLY = Reply(b"R" * 20, b"T" * 8)


class Bench:
    """Requests with their datagrams caught."""

    def __init__(self):
        self.sent, self.values, self.drops = [], [], Drops()
        numbers = count(1)
        self.requests = Requests(
            lambda data, to: self.sent.append((data, to)),
            self.drops,
            lambda size: next(numbers).to_bytes(size, "big"),
        )

    def ask(self, request=REQUEST):
        return asyncio.ensure_future(self.requests.ask(PEER, request, self.values.append))

    @property
    def last_id(self):
        return split(self.sent[-1][0])[1]

    def reply(self, reply=REPLY, rpc=Rpc.PING, source=PEER, message_id=None):
        message_id = message_id or self.last_id
        self.requests.handle_reply(message_id, encode_reply(message_id, rpc, reply)[HEADER_LENGTH:], source)

    def value(self, envelope, source=PEER):
        body = encode_value(self.last_id, envelope)[HEADER_LENGTH:]
        self.requests.handle_value(self.last_id, body, source)


async def later(duration_s=0.0):
    await asyncio.sleep(duration_s)


def test_the_node_that_was_asked_may_answer():
    async def scenario():
        bench = Bench()
        task = bench.ask()
        await later(0.1)
        bench.reply()
        answer = await task
        assert answer.reply == REPLY
        assert 0.09 < answer.rtt_s < 0.11
        assert len(bench.requests) == 0

    run(scenario())


def test_another_address_or_message_id_may_not():
    async def scenario():
        bench = Bench()
        task = bench.ask()
        await later()
        bench.reply(source=OTHER)
        bench.reply(message_id=b"?" * 20)
        assert await task is None
        assert bench.drops.as_dict() == {"dht.reply_source": 1, "dht.unsolicited": 1}

    run(scenario())


def test_is_sent_twice_then_given_up():
    async def scenario():
        bench = Bench()
        start = asyncio.get_running_loop().time()
        task = bench.ask()
        await later(RETRANSMIT_S - 0.01)
        assert len(bench.sent) == 1
        assert await task is None
        assert len(set(bench.sent)) == 1
        assert len(bench.sent) == 2
        assert abs(asyncio.get_running_loop().time() - start - HARD_TIMEOUT_S) < 0.01

    run(scenario())


def test_a_cancelled_request_leaves_nothing():
    async def scenario():
        bench = Bench()
        task = bench.ask()
        await later()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(bench.requests) == 0
        bench.reply()
        await later(5)
        assert len(bench.sent) == 1, "no retransmission after the caller has gone"

    run(scenario())


def test_a_malformed_reply_ends_the_request():
    async def scenario():
        bench = Bench()
        task = bench.ask()
        await later()
        bench.requests.handle_reply(bench.last_id, frame(1, bench.last_id, [1])[HEADER_LENGTH:], PEER)
        assert await asyncio.wait_for(task, 0.01) is None
        assert bench.drops.as_dict() == {"dht.malformed_reply": 1}

    run(scenario())


def test_values_arrive_in_any_order():
    async def scenario():
        bench = Bench()
        task = bench.ask(FIND)
        await later()
        bench.value(b"one")
        bench.reply(Reply(b"R" * 20, b"", values=2), Rpc.FIND)
        await later(0.1)
        assert not task.done()
        bench.value(b"two")
        assert (await asyncio.wait_for(task, 0.01)).values_received == 2
        assert bench.values == [b"one", b"two"]

    run(scenario())


def test_lost_values_are_waited_for_only_a_little():
    async def scenario():
        bench = Bench()
        start = asyncio.get_running_loop().time()
        task = bench.ask(FIND)
        await later()
        bench.reply(Reply(b"R" * 20, b"", values=3), Rpc.FIND)
        bench.value(b"one")
        assert (await task).values_received == 1
        assert asyncio.get_running_loop().time() - start <= VALUES_PATIENCE_S + 0.01

    run(scenario())


def test_a_flood_of_values_is_capped():
    async def scenario():
        bench = Bench()
        task = bench.ask(FIND)
        await later()
        for _ in range(100):
            bench.value(b"x")
        bench.reply(Reply(b"R" * 20, b"", values=1), Rpc.FIND)
        await task
        assert len(bench.values) == 32
        assert bench.drops.as_dict()["dht.unexpected_value"] == 68

    run(scenario())


def test_requests_in_flight_are_capped():
    async def scenario():
        bench = Bench()
        tasks = [bench.ask() for _ in range(MAX_OUTSTANDING + 5)]
        await later()
        assert len(bench.requests) == MAX_OUTSTANDING
        assert sum(task.done() for task in tasks) == 5
        await asyncio.gather(*tasks)
        assert len(bench.requests) == 0

    run(scenario())
