"""Whatever arrives, from strangers or from a peer with keys: no exception, and allowed IPs hold."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_network

from engines_in_memory import INDEX_B, Pair, Side, ipv4, ipv6
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.dataplane.messages import (
    Activity,
    ControlFrame,
    Datagram,
    EraseKeypairs,
    KeypairConfirmed,
    RemovePeer,
    Send,
    SetEndpoint,
    SetPeer,
    decode,
    encode,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.packet.ip import addresses

V4 = [IPv4Address(f"10.1.0.{n}") for n in (1, 2, 3)] + [IPv4Address("224.0.0.1"), IPv4Address("127.0.0.1")]
V6 = [IPv6Address(f"fd00::{n}") for n in (1, 2, 3)] + [IPv6Address("ff02::1"), IPv6Address("::1")]
A, B = {V4[0].packed, V6[0].packed}, {V4[1].packed, V6[1].packed}

bodies = st.binary(max_size=60)
packets = st.builds(
    ipv4, st.sampled_from(V4), st.sampled_from(V4), bodies, protocol=st.integers(0, 255)
) | st.builds(ipv6, st.sampled_from(V6), st.sampled_from(V6), bodies, next_header=st.integers(0, 255))
hosts = st.sampled_from([("192.0.2.1", 4001), ("203.0.113.9", 1), ("203.0.113.9", 0)])


@st.composite
def altered(draw: st.DrawFn, source: st.SearchStrategy[bytes] = packets) -> bytes:
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


anything = packets | altered() | st.binary(max_size=100)


def delivered_is_allowed(side: Side, peers: set[bytes], own: set[bytes]) -> None:
    for packet in side.tun.received_by_host:
        length, source, destination = addresses(packet)
        assert length == len(packet)
        assert source in peers
        assert destination in own


@given(st.lists(st.tuples(anything, hosts), max_size=8))
def test_a_peer_with_keys_cannot_get_anything_but_its_own_packets_in(
    sent: list[tuple[bytes, tuple[str, int]]],
) -> None:
    pair = Pair.make()
    for plaintext, source in sent:
        datagram = pair.a.engine._peers.by_number[1].transport.seal(plaintext, 0.0)
        assert datagram is not None
        pair.b.receive(datagram, source=source)
    delivered_is_allowed(pair.b, A, B)
    pair.b.engine.handle_timeout(1.0)
    for event in pair.b.events:
        assert decode(encode(event)) == event  # each can be told to the control process


@given(st.lists(st.binary(max_size=100), max_size=5), hosts, st.integers(1, 200))
def test_strangers_change_nothing(datagrams: list[bytes], source: tuple[str, int], stride: int) -> None:
    pair = Pair.make()
    prefix = b"\x04\0\0\0" + INDEX_B.to_bytes(4, "little")
    for datagram in datagrams:
        for data in (datagram, prefix + datagram):
            pair.b.socket.arrived.append((data, stride, source))
    pair.b.receive()
    assert pair.b.tun.received_by_host == pair.b.events == pair.b.socket.sent == []


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_an_altered_datagram_never_opens(changes: list[tuple[int, int]]) -> None:
    pair = Pair.make()
    pair.a.send(ipv4(V4[0], V4[1], b"\x77" * 300))
    (good,) = pair.a.take_sent()
    bad = bytearray(good)
    for at, value in changes:
        bad[at % len(bad)] = value
    pair.b.receive(bytes(bad))
    assert (pair.b.tun.received_by_host == []) == (bytes(bad) != good)


@given(st.lists(anything.filter(bool), max_size=10))
def test_what_leaves_goes_to_the_holder_of_its_destination(sent: list[bytes]) -> None:
    pair = Pair.make()
    c = Side(IPv4Address("10.1.0.3"), IPv6Address("fd00::3"), Endpoint("192.0.2.3", 4003))
    pair.a.know(c, peer=2)  # without keys
    pair.a.send(*sent)
    assert all(address == ("192.0.2.2", 4002) for _, address in pair.a.socket.sent)
    transport = pair.b.engine._peers.by_number[1].transport
    for datagram in pair.a.take_sent():
        assert addresses(transport.open(datagram, 0.0))[2] in B
    for waiting in pair.a.engine._peers.by_number[2].queue:
        assert addresses(waiting.data[10:])[2] in {V4[2].packed, V6[2].packed}


numbers = st.integers(1, 3)
endpoints = st.sampled_from([Endpoint("192.0.2.2", 4002), Endpoint("2001:db8::1", 9)])
commands = st.one_of(
    st.builds(
        SetPeer, numbers, st.lists(st.ip_addresses().map(ip_network), max_size=3).map(tuple), endpoints
    ),
    st.builds(RemovePeer, numbers),
    st.builds(EraseKeypairs, numbers),
    st.builds(SetEndpoint, numbers, endpoints),
    st.builds(Send, numbers, st.binary(max_size=50)),
    st.builds(Datagram, st.binary(max_size=80), endpoints),
)


@given(st.lists(commands | anything.filter(bool), max_size=25))
def test_commands_and_packets_in_any_order(steps: list[object]) -> None:
    pair = Pair.make()
    for now, step in enumerate(steps):
        if isinstance(step, bytes):
            pair.a.send(step, now=float(now))
            datagram = pair.b.engine._peers.by_number[1].transport.seal(step, float(now))
            if datagram is not None:
                pair.a.receive(datagram)
        else:
            pair.a.engine.handle_command(step, float(now))  # type: ignore[arg-type]
        pair.a.engine.handle_timeout(now + 0.5)
    table = pair.a.engine._peers
    assert table._queued_total == sum(peer.queued_bytes for peer in table.by_number.values())
    assert all(index in peer.indices for index, peer in table.by_index.items())
    assert set(table.active) <= set(table.by_number)
    for event in pair.a.events:
        if isinstance(event, ControlFrame | Activity | KeypairConfirmed):
            assert event.peer in {1, 2, 3}


@given(st.binary(max_size=200))
def test_no_bytes_make_a_message_raise_anything_else(data: bytes) -> None:
    with suppress(DecodeError):
        decode(data)
