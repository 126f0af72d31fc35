"""The answering side: tokens, the amplification limit, caps. One node, its datagrams caught."""

import pytest
from discovery_simulation import Network, fake_envelope, run

from dhtvpn.discovery.limits import BURST
from dhtvpn.discovery.wire import (
    AMPLIFICATION,
    HEADER_LENGTH,
    KIND_REPLY,
    KIND_VALUE,
    Flags,
    Request,
    Rpc,
    Status,
    decode_reply,
    decode_value,
    encode_request,
    frame,
    pack_have,
)
from dhtvpn.endpoint import Endpoint

KEY, ID = bytes(range(20)), b"Q" * 20
CLIENT = Endpoint("198.18.200.1", 4690)
WANT = Flags.WANT_IPV4 | Flags.WANT_IPV6


class Bench:
    """One node with a full table and 20 records; ``ask`` returns what it sends back at once."""

    def __init__(self):
        self.net = Network()
        self.node = self.net.node(0, families=frozenset({4, 6}))
        self.sent = []
        self.node._port_send = lambda data, to: self.sent.append((data, to))
        for number in range(1, 60):
            for family in (4, 6):
                self.node._table.heard(self.net.contact(number, family), 0.0, 0.01)
        for writer in range(20):
            self.node._storage.put(KEY, fake_envelope(KEY, writer, 1, size=200), None, self.net.unix_time())

    def datagrams(self, request, source=CLIENT, message_id=b"M" * 20):
        self.sent.clear()
        data = encode_request(message_id, request)
        self.node.handle_datagram(data, source)
        return len(data), [sent for sent, to in self.sent if to == source]

    def ask(self, request, source=CLIENT):
        _, datagrams = self.datagrams(request, source)
        replies = [d for d in datagrams if d[0] == KIND_REPLY]
        values = [decode_value(d[HEADER_LENGTH:]) for d in datagrams if d[0] == KIND_VALUE]
        assert len(replies) == 1
        return decode_reply(request.rpc, replies[0][HEADER_LENGTH:], source), values

    def token(self, source=CLIENT):
        return self.ask(Request(Rpc.PING, ID), source)[0].token


def in_loop(test):
    async def scenario():
        bench = Bench()
        test(bench)
        await bench.net.close()

    run(scenario())


@pytest.mark.parametrize("rpc", list(Rpc))
@pytest.mark.parametrize("token", [b"", b"12345678"])
@pytest.mark.parametrize("have", [b"", pack_have([(bytes(16), 1)] * 64)])
def test_unproven_requests_get_at_most_three_times_their_octets(rpc, token, have):
    def check(bench):
        target = b"" if rpc is Rpc.PING else KEY
        payload = b"" if rpc in (Rpc.PING, Rpc.FIND_NODE) else have
        size, datagrams = bench.datagrams(Request(rpc, ID, token, WANT, target, payload))
        assert datagrams
        total = sum(len(data) for data, to in bench.sent)
        assert total <= AMPLIFICATION * size, "the ping that verifies the stranger counts too"

    in_loop(check)


def test_with_a_token_everything_is_sent_in_datagrams_of_their_own():
    def check(bench):
        reply, values = bench.ask(Request(Rpc.FIND, ID, bench.token(), WANT, KEY))
        assert (reply.values, reply.more, len(values)) == (20, 0, 20)
        assert len(reply.contacts) == 16
        assert all(len(data) <= 1200 for data, _ in bench.sent)

    in_loop(check)


def test_without_a_token_what_fits_comes_and_the_rest_is_counted():
    def check(bench):
        reply, values = bench.ask(Request(Rpc.FIND, ID, b"", Flags.WANT_IPV4, KEY))
        assert reply.values == len(values) >= 1
        assert reply.values + reply.more == 20

    in_loop(check)


@pytest.mark.parametrize("rpc", [Rpc.STORE, Rpc.WATCH])
def test_writing_needs_a_token_and_says_so_with_a_fresh_one(rpc):
    def check(bench):
        payload = fake_envelope(KEY, 99, 1) if rpc is Rpc.STORE else b""
        for token in (b"", b"12345678", bench.token(CLIENT._replace(port=1))):
            reply, _ = bench.ask(Request(rpc, ID, token, WANT, KEY, payload))
            assert reply.status is Status.BAD_TOKEN
        assert bench.node.stored == 20
        assert len(bench.node._subscriptions) == 0
        again, _ = bench.ask(Request(rpc, ID, reply.token, WANT, KEY, payload))
        assert again.status is Status.OK

    in_loop(check)


def test_store_statuses():
    def check(bench):
        token = bench.token()

        def store(envelope):
            return bench.ask(Request(Rpc.STORE, ID, token, WANT, KEY, envelope))[0].status

        assert store(fake_envelope(KEY, 1, 2)) is Status.OK
        assert store(fake_envelope(KEY, 1, 2)) is Status.OK
        assert store(fake_envelope(KEY, 1, 1)) is Status.STALE
        assert store(b"rubbish") is Status.REFUSED
        for writer in range(100, 300):
            bench.node._storage.put(KEY, fake_envelope(KEY, writer, 1), None, bench.net.unix_time())
        assert store(fake_envelope(KEY, 999, 1)) is Status.FULL

    in_loop(check)


def test_watch_grants_a_lease_and_sends_what_is_missing():
    def check(bench):
        reply, values = bench.ask(Request(Rpc.WATCH, ID, bench.token(), WANT, KEY))
        assert (reply.status, reply.lease_s, len(values)) == (Status.OK, 60, 20)
        held = [(s.slot, s.sequence) for s in bench.node._storage.get(KEY, bench.net.unix_time())]
        reply, values = bench.ask(Request(Rpc.WATCH, ID, bench.token(), WANT, KEY, pack_have(held)))
        assert (reply.values, reply.more, values) == (0, 0, [])

    in_loop(check)


@pytest.mark.parametrize(
    ("clock", "told"),
    [(1_800_000_000.9, 1_800_000_000), (-5.0, 0), (2.0**32, 2**32 - 1), (1e12, 2**32 - 1)],
)
def test_a_ping_is_answered_with_the_time_in_whole_seconds_whatever_the_clock(clock, told):
    def check(bench):
        bench.node._service._unix_time = lambda: clock
        assert bench.ask(Request(Rpc.PING, ID))[0].unix_time == told

    in_loop(check)


def test_pushes_that_nobody_subscribed_to_are_refused():
    def check(bench):
        reply, _ = bench.ask(Request(Rpc.PUSH, ID, b"", WANT, KEY, fake_envelope(KEY, 1, 9)))
        assert reply.status is Status.REFUSED

    in_loop(check)


def test_contacts_of_unwanted_families_are_not_told():
    def check(bench):
        reply, _ = bench.ask(Request(Rpc.FIND_NODE, ID, bench.token(), Flags.WANT_IPV6, KEY))
        assert {contact.family for contact in reply.contacts} == {6}

    in_loop(check)


def test_one_address_is_answered_at_a_limited_rate():
    def check(bench):
        answered = sum(bool(bench.datagrams(Request(Rpc.PING, ID))[1]) for _ in range(1000))
        assert answered == BURST
        assert bench.node._drops.as_dict()["dht.rate_limit"] == 1000 - BURST

    in_loop(check)


def test_what_is_over_the_limit_is_dropped_before_it_is_parsed():
    """Parsing is what a flood would cost, so the limit comes first: the same damaged request is found to be
    damaged within it, and not looked at beyond it."""

    def check(bench):
        malformed = frame(0, bytes(20), ["get_peers", []])
        bench.node.handle_datagram(malformed, CLIENT)
        assert bench.node._drops.as_dict() == {"dht.malformed_request": 1}
        for _ in range(int(BURST) - 1):
            bench.datagrams(Request(Rpc.PING, ID))
        for _ in range(10):
            bench.node.handle_datagram(malformed, CLIENT)
        assert bench.node._drops.as_dict() == {"dht.malformed_request": 1, "dht.rate_limit": 10}

    in_loop(check)


def test_values_count_as_answers_so_that_octets_are_limited_too():
    def check(bench):
        request = Request(Rpc.FIND, ID, bench.token(), WANT, KEY)
        octets = sum(len(d) for _ in range(1000) for d in bench.datagrams(request)[1])
        assert octets < BURST * 4500
        assert bench.node._drops.as_dict()["dht.rate_limit"] > 900

    in_loop(check)


def test_our_own_id_is_not_answered():
    def check(bench):
        assert bench.datagrams(Request(Rpc.PING, bench.node.node_id))[1] == []

    in_loop(check)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "dht.size"),
        (bytes(21), "dht.size"),
        (bytes(1201), "dht.size"),
        (b"\x03" + bytes(40), "dht.kind"),
        (frame(0, bytes(20), ["get_peers", []]), "dht.malformed_request"),
        (b"\x00" + bytes(20) + b"\x91" * 1000, "dht.malformed_request"),
        (frame(1, bytes(20), [ID, b""]), "dht.unsolicited"),
        (frame(2, bytes(20), b"x"), "dht.unsolicited"),
    ],
)
def test_bad_datagrams_are_counted_and_not_answered(data, reason):
    def check(bench):
        bench.node.handle_datagram(data, CLIENT)
        assert bench.sent == []
        assert bench.node._drops.as_dict() == {reason: 1}

    in_loop(check)
