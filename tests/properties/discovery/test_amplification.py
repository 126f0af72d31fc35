"""Hypothesis: whatever a node knows and stores, without a token an address gets three times its octets.

Counted are octets at the wire, with IP and UDP headers: every datagram that leaves for the forged address,
at any time, against all that came in its name.
"""

import asyncio
import random

from discovery_simulation import Network, fake_envelope, run
from hypothesis import HealthCheck, given, settings, target
from hypothesis import strategies as st

from dhtvpn.discovery.limits import BURST
from dhtvpn.discovery.node_ids import bound_id
from dhtvpn.discovery.wire import (
    AMPLIFICATION,
    KIND_REQUEST,
    MAX_DATAGRAM,
    Flags,
    Request,
    Rpc,
    encode_request,
    frame,
)
from dhtvpn.endpoint import Endpoint

KEYS = [bytes([number]) * 20 for number in range(3)]
VICTIMS = [Endpoint("203.0.113.7", 4690), Endpoint("203.0.113.7", 53), Endpoint("2001:db8:ffff::7", 4690)]
NEIGHBOUR = Endpoint("198.51.100.1", 4690)
PREFIX_OCTET, UDP_HEADER, IP_HEADER = 1, 8, {False: 20, True: 40}

sizes = st.integers(80, 877)
states = st.fixed_dictionaries(
    {
        "contacts": st.lists(st.tuples(st.integers(1, 999), st.sampled_from([4, 6])), max_size=60),
        "stored": st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 60), sizes), max_size=60),
        "watched": st.lists(st.sampled_from(KEYS), max_size=3),
    }
)
forged = st.tuples(
    st.sampled_from(Rpc),
    st.sampled_from(KEYS),
    st.sampled_from(VICTIMS),
    st.integers(0, 255),  # flags
    st.sampled_from([b"", b"12345678"]),
    st.sampled_from([0, 100, 300, 600, MAX_DATAGRAM]),  # padding
    st.integers(0, 9),  # who it claims to be
    st.sampled_from([0.0, 0.3, 1.0, 70.0]),  # seconds until the next one
)


def request_octets(rpc, key, *, flags, token, padding, identity):
    """A request with padding of any length; asking for much, and storing what is valid. ``identity``: its
    node id, and its message id."""
    arguments = [identity, token, flags]
    if rpc is not Rpc.PING:
        arguments.append(key)
    if rpc in (Rpc.STORE, Rpc.PUSH):
        arguments.append(fake_envelope(key, 99, 1, size=100))
    elif rpc in (Rpc.FIND, Rpc.WATCH):
        arguments.append(b"")
    empty = frame(KIND_REQUEST, bytes(20), [rpc.value, [*arguments, b""]])
    room = max(0, min(padding, MAX_DATAGRAM - len(empty) - 1))
    return frame(KIND_REQUEST, identity, [rpc.value, [*arguments, bytes(room)]])


def at_wire(data, endpoint):
    return len(data) + PREFIX_OCTET + UDP_HEADER + IP_HEADER[endpoint.is_ipv6]


def fill(net, node, state):
    now = asyncio.get_running_loop().time()
    for number, family in state["contacts"]:
        node._table.heard(net.contact(number, family), now, 0.01)
    for key, writer, size in state["stored"]:
        node._storage.put(key, fake_envelope(key, writer, 1, size=size), None, net.unix_time())
    for key in state["watched"]:
        node._subscriptions.subscribe(key, NEIGHBOUR, now)


def publish_as_somebody_else(net, node, key, sequence):
    """A proven neighbour stores a new envelope, so that watchers get pushes."""
    token = node.tokens.issue(NEIGHBOUR, asyncio.get_running_loop().time())
    envelope = fake_envelope(key, 7, sequence)
    request = Request(Rpc.STORE, b"N" * 20, token, Flags.READ_ONLY, key, envelope)
    node.handle_datagram(encode_request(bytes(20), request), NEIGHBOUR)


@given(states, st.lists(forged, min_size=1, max_size=12))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_a_forged_source_gets_three_times_its_octets_at_most(state, requests):
    """Any state and requests; replies, values, meeting pings, repeats, pushes of what is stored later."""

    async def scenario():
        net = Network()
        node = net.node(0, families=frozenset({4, 6}))
        received, sent = dict.fromkeys(VICTIMS, 0), dict.fromkeys(VICTIMS, 0)
        datagrams_in, datagrams_out = dict.fromkeys(VICTIMS, 0), dict.fromkeys(VICTIMS, 0)

        def port_send(data, endpoint):
            if endpoint in sent:
                sent[endpoint] += at_wire(data, endpoint)
                datagrams_out[endpoint] += 1
                assert sent[endpoint] <= AMPLIFICATION * received[endpoint]

        node._port_send = port_send
        fill(net, node, state)
        for number, (rpc, key, victim, flags, token, padding, identity, pause_s) in enumerate(requests):
            named = bytes([identity]) * 20
            data = request_octets(rpc, key, flags=flags, token=token, padding=padding, identity=named)
            received[victim] += at_wire(data, victim)
            datagrams_in[victim] += 1
            node.handle_datagram(data, victim)
            publish_as_somebody_else(net, node, key, number + 1)
            await asyncio.sleep(pause_s)
        for number, key in enumerate(KEYS):
            publish_as_somebody_else(net, node, key, 100 + number)
        await asyncio.sleep(120)
        assert all(sent[victim] <= AMPLIFICATION * received[victim] for victim in VICTIMS)
        assert len(node._subscriptions) <= len(KEYS)
        assert all(datagrams_out[victim] <= 3 * datagrams_in[victim] for victim in VICTIMS)
        target(max(sent[v] / received[v] for v in VICTIMS if received[v]), label="octets sent per octet")
        await net.close()

    assert len(requests) < BURST
    run(scenario())


def test_contacts_and_the_ping_that_verifies_a_stranger_stay_within_the_limit_together():
    """A stranger that the table wants, at a victim's address, asks for all contacts with as few octets as it
    likes. The reply fills what its request allows; the ping is sent only where something is left for it."""

    async def scenario():
        net, rng = Network(), random.Random(3)
        node = net.node(0)
        sent, pinged = {}, set()

        def port_send(data, endpoint):
            sent[endpoint] = sent.get(endpoint, 0) + at_wire(data, endpoint)
            if data[0] == KIND_REQUEST:
                pinged.add(endpoint)

        node._port_send = port_send
        now = asyncio.get_running_loop().time()
        for number in range(1, 61):
            node._table.heard(net.contact(number), now, 0.01)
        factors = {}
        for padding in range(120):
            victim, flags = Endpoint(f"203.0.{padding}.7", 4690), Flags.WANT_IPV4 | Flags.WANT_IPV6
            stranger = bound_id(victim.host, rng.randbytes)
            data = request_octets(
                Rpc.FIND_NODE, KEYS[0], flags=flags, token=b"", padding=padding, identity=stranger
            )
            node.handle_datagram(data, victim)
            await asyncio.sleep(10)
            factors[padding] = sent[victim] / at_wire(data, victim)
        assert max(factors.values()) <= AMPLIFICATION, factors
        assert max(factors.values()) > 2.5, "near enough to the limit for a ping to make a difference"
        assert 0 < len(pinged) < len(factors), "some have room for a ping, some have none"
        await net.close()

    run(scenario())
