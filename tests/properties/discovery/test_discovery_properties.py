"""Hypothesis: no datagram raises or grows state past its caps; codecs round-trip; storage fits a model."""

import asyncio
import random
from collections import Counter

from discovery_simulation import UNIX_START, Network, fake_envelope, fake_inspect, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dhtvpn.discovery import msgpack
from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.floors import FLOOR_S
from dhtvpn.discovery.node_ids import bound_id
from dhtvpn.discovery.storage import ENTRY_OVERHEAD, Outcome, Storage
from dhtvpn.discovery.wire import (
    AMPLIFICATION,
    HEADER_LENGTH,
    Flags,
    Reply,
    Request,
    Rpc,
    Status,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

ids = st.binary(min_size=20, max_size=20)
tokens = st.sampled_from([b"", b"12345678"])
haves = st.integers(0, 64).flatmap(lambda n: st.binary(min_size=14 * n, max_size=14 * n))
envelopes = st.binary(max_size=900)
endpoints = st.builds(
    Endpoint.unpack,
    st.one_of(
        st.binary(min_size=2, max_size=2).map(lambda b: bytes([198, 18]) + b + b"\x12\x52"),
        st.binary(min_size=2, max_size=2).map(lambda b: b"\x20\x01\x0d\xb8" + bytes(10) + b + b"\x12\x52"),
    ),
)


@st.composite
def requests(draw):
    rpc = draw(st.sampled_from(Rpc))
    target = b"" if rpc is Rpc.PING else draw(ids)
    payload = b""
    if rpc in (Rpc.STORE, Rpc.PUSH):
        payload = draw(st.one_of(envelopes, st.just(fake_envelope(target, 1, 1))))
    elif rpc in (Rpc.FIND, Rpc.WATCH):
        payload = draw(haves)
    return Request(rpc, draw(ids), draw(tokens), Flags(draw(st.integers(0, 7))), target, payload)


@st.composite
def mutated_requests(draw):
    """A request with a few octets changed, cut, or added; or nothing like one."""
    data = bytearray(encode_request(draw(ids), draw(requests())))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    end = draw(st.sampled_from([len(data), len(data), draw(st.integers(0, len(data)))]))
    return bytes(data[:end]) + draw(st.binary(max_size=3))


def at_home(random_octets, endpoint):
    """A contact whose id fits its address."""
    return Contact(bound_id(endpoint.host, lambda _: random_octets), endpoint)


@given(requests(), ids)
def test_requests_round_trip(request, message_id):
    assert decode_request(encode_request(message_id, request)[HEADER_LENGTH:]) == request


@given(
    st.sampled_from(Rpc),
    ids,
    tokens,
    st.lists(st.builds(at_home, ids, endpoints), max_size=8, unique_by=lambda c: c.node_id),
    st.integers(0, 32),
    st.integers(0, 65535),
    st.sampled_from(Status),
    st.integers(0, 600),
    st.integers(0, 2**32 - 1),
    st.none() | endpoints,
)
def test_replies_round_trip(  # noqa: PLR0917
    rpc, node_id, token, contacts, values, more, status, lease_s, unix_time, seen
):
    contacts = tuple(sorted(contacts, key=lambda contact: contact.family))
    reply = Reply(
        node_id,
        token,
        contacts if rpc in (Rpc.FIND, Rpc.FIND_NODE) else (),
        values if rpc in (Rpc.FIND, Rpc.WATCH) else 0,
        more if rpc in (Rpc.FIND, Rpc.WATCH) else 0,
        status if rpc in (Rpc.STORE, Rpc.WATCH, Rpc.PUSH) else Status.OK,
        lease_s if rpc is Rpc.WATCH else 0,
        unix_time if rpc is Rpc.PING else 0,
        seen,
    )
    body = encode_reply(bytes(20), rpc, reply)[HEADER_LENGTH:]
    assert decode_reply(rpc, body, Endpoint("198.18.0.1", 1)) == reply


@given(st.binary(max_size=1300))
def test_msgpack_decodes_or_refuses(data):
    try:
        value = msgpack.unpack(data)
    except DecodeError:
        return
    assert isinstance(value, int | str | bytes | list | bool | None)


@given(st.lists(st.tuples(st.one_of(mutated_requests(), st.binary(max_size=1300)), endpoints), max_size=40))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_datagram_raises_amplifies_or_grows_past_the_caps(datagrams):
    async def scenario():
        net = Network()
        node = net.node(0, families=frozenset({4, 6}))
        sent = []
        node._port_send = lambda data, to: sent.append(data)
        for data, source in datagrams:
            sent.clear()
            node.handle_datagram(data, source)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert sum(map(len, sent)) <= AMPLIFICATION * len(data)
        assert node.size == 0, "nobody answered a question of ours"
        assert node.stored == 0, "nobody had a token"
        assert len(node._tasks) <= 40
        await asyncio.sleep(10)
        assert len(node._requests) == len(node._tasks) == 0
        await net.close()

    run(scenario())


@given(st.integers(0, 2**32), st.integers(1, 5))
@settings(max_examples=25)
def test_mutated_conversations_raise_nothing_and_fool_nobody(seed, changes):
    """Half the datagrams of a working network are altered on the way; only true records come out."""
    rng = random.Random(seed)

    async def scenario():
        net = Network(seed=seed)
        nodes = await net.grow(5)
        truth = {fake_envelope(bytes(20), writer, 1) for writer in range(3)}
        for envelope in sorted(truth):
            await nodes[1].publish(bytes(20), envelope)
        carry = net.carry

        def altering(data, source, destination):
            changed = bytearray(data)
            if rng.random() < 0.5:
                for _ in range(changes):
                    changed[rng.randrange(len(changed))] = rng.randrange(256)
            carry(bytes(changed), source, destination)

        net.carry = altering
        found = set()
        for node in nodes:
            found |= {envelope[:64] async for envelope in node.lookup(bytes(20))}
        assert found <= {envelope[:64] for envelope in truth}, "64 octets are what the fake signature covers"
        await net.close()

    run(scenario())


class StorageModel(RuleBasedStateMachine):
    """Storage against a dictionary: per slot the highest sequence that is not expired; caps always hold."""

    CAP_SLOTS, CAP_BYTES, CAP_ADDRESS = 4, 9 * (300 + ENTRY_OVERHEAD), 6
    CAP_PREFIX = 7 * (300 + ENTRY_OVERHEAD)

    def __init__(self):
        super().__init__()
        self.storage = Storage(
            fake_inspect,
            Drops(),
            max_slots=self.CAP_SLOTS,
            max_bytes=self.CAP_BYTES,
            max_per_address=self.CAP_ADDRESS,
            max_per_prefix=self.CAP_PREFIX,
        )
        self.now = float(UNIX_START)
        self.highest = {}

    @rule(
        topic=st.integers(0, 5),
        writer=st.integers(0, 6),
        sequence=st.integers(1, 5),
        lifetime=st.integers(1, 200),
        host=st.integers(1, 8),
        size=st.integers(100, 300),
    )
    def put(self, *, topic, writer, sequence, lifetime, host, size):
        key = bytes([topic]) * 20
        expires_in = int(self.now) - UNIX_START + lifetime
        envelope = fake_envelope(key, writer, sequence, expires_in, size)
        source = Endpoint(f"198.18.{host // 3}.{host}", 1)
        held = {s.slot: s for s in self.storage.get(key, self.now)}
        outcome = self.storage.put(key, envelope, source, self.now)
        slot = fake_inspect(envelope, key, self.now).slot
        if self.highest.get((key, slot), (0, 0))[0] > sequence:
            assert outcome is Outcome.STALE, "nobody rolls a slot back, even when it is empty"
        if outcome is Outcome.NEW:
            assert slot not in held or sequence > held[slot].sequence
            assert envelope in [s.envelope for s in self.storage.get(key, self.now)]
            self.highest[key, slot] = (sequence, self.now + FLOOR_S)

    @rule(step=st.integers(1, 60))
    def wait(self, step):
        self.now += step
        self.storage.expire(self.now)
        self.highest = {place: held for place, held in self.highest.items() if int(held[1]) > self.now}

    @invariant()
    def caps_hold_and_counts_agree(self):
        topics = self.storage._topics
        stored = [s for slots in topics.values() for s in slots.values()]
        assert len(stored) == len(self.storage)
        assert (
            sum(len(s.envelope) + ENTRY_OVERHEAD for s in stored) == self.storage.size_bytes <= self.CAP_BYTES
        )
        assert all(0 < len(slots) <= self.CAP_SLOTS for slots in topics.values())
        assert all(s.expires > self.now for s in stored)
        per_address, per_prefix = Counter(), Counter()
        for s in stored:
            per_address[s.holder] += 1
            per_prefix[s.holder.prefix] += s.cost
        assert max(per_address.values(), default=0) <= self.CAP_ADDRESS
        assert max(per_prefix.values(), default=0) <= self.CAP_PREFIX
        shares = self.storage._shares
        assert {prefix: shares.of_prefix(prefix) for prefix in per_prefix} == dict(per_prefix)
        assert {holder.address: len(self.storage._of_address[holder.address]) for holder in per_address} == {
            holder.address: number for holder, number in per_address.items()
        }
        assert shares.prefixes == len(per_prefix)


TestStorageModel = StorageModel.TestCase
TestStorageModel.settings = settings(max_examples=60, stateful_step_count=40)
