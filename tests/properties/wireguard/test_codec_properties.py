"""Round trips, and random or mutated bytes: dropped and counted, never raised."""

import os
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.wireguard import tai64n
from dhtvpn.wireguard.cookie import MacMaker
from dhtvpn.wireguard.device import Device
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.messages import CookieReply, Initiation, Response
from dhtvpn.wireguard.replay import WINDOW, ReplayWindow
from dhtvpn.wireguard.transport import PeerTransport

SOURCE = Endpoint("192.0.2.1", 51820)
index = st.integers(0, 0xFFFFFFFF)


def sized(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


initiations = st.builds(Initiation, index, sized(32), sized(48), sized(28))
responses = st.builds(Response, index, index, sized(32), sized(16))
cookie_replies = st.builds(CookieReply, index, sized(24), sized(32))


@given(initiations, responses, cookie_replies, sized(32))
def test_messages_round_trip(one: Initiation, two: Response, three: CookieReply, macs: bytes) -> None:
    assert Initiation.unpack(one.pack() + macs) == one
    assert Response.unpack(two.pack() + macs) == two
    assert CookieReply.unpack(three.pack()) == three


@given(st.binary(max_size=200), st.sampled_from([Initiation, Response, CookieReply]))
def test_decoders_raise_decode_errors_only(data: bytes, message: type[Initiation]) -> None:
    try:
        message.unpack(data)
    except DecodeError as error:
        assert error.reason in {"type", "length"}


@given(st.lists(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, 5), st.binary(max_size=160)))))
def test_a_device_survives_any_bytes(datagrams: list[bytes | tuple[int, bytes]]) -> None:
    drops = Drops()
    device = Device(os.urandom(32), os.urandom, drops=drops)
    device.add_peer(Device(os.urandom(32), os.urandom, drops=drops).public_key, bytes(32))
    for item in datagrams:
        data = item if isinstance(item, bytes) else item[0].to_bytes(4, "little") + item[1]
        device.handle_datagram(data, SOURCE, 0.0, 0.0)
    assert drops.total() == len(datagrams)
    assert device.datagrams_to_send() == []


@given(st.lists(st.one_of(initiations, responses), max_size=10), st.booleans())
def test_well_formed_nonsense_with_a_valid_mac1(messages: list[Initiation | Response], loaded: bool) -> None:
    """What anybody can send who knows our public key: at most a smaller cookie reply comes back."""
    drops = Drops()
    device = Device(bytes(range(32)), os.urandom, drops=drops, under_load=lambda _: loaded)
    maker = MacMaker(device.public_key)
    for message in messages:
        datagram = maker.append(message.pack(), 0.0)
        device.handle_datagram(datagram, SOURCE, 0.0, 0.0)
        replies = device.datagrams_to_send()
        assert len(replies) == loaded
        assert all(len(reply) < len(datagram) and to == SOURCE for reply, to in replies)
    assert drops.total() == len(messages)
    assert device.events() == []


@given(st.binary(max_size=1500))
def test_packets_round_trip(plaintext: bytes) -> None:
    ours, theirs = PeerTransport(1420), PeerTransport(1420)
    ours.install(Keypair(1, 2, bytes(32), bytes([1]) * 32, True, 0.0))
    theirs.install(Keypair(2, 1, bytes([1]) * 32, bytes(32), True, 0.0))
    datagram = ours.seal(plaintext, 0.0)
    assert datagram is not None
    opened = theirs.open(datagram, 0.0)
    assert opened[: len(plaintext)] == plaintext
    assert not any(opened[len(plaintext) :])
    assert len(opened) <= max(len(plaintext), 1420)


@given(st.binary(max_size=100), st.booleans())
def test_a_transport_raises_decode_errors_only(data: bytes, addressed: bool) -> None:
    transport = PeerTransport(1420)
    transport.install(Keypair(1, 2, bytes(32), bytes([1]) * 32, True, 0.0))
    try:
        transport.open(b"\4\0\0\0\1\0\0\0" + data if addressed else data, 0.0)
    except DecodeError as error:
        assert error.reason.startswith("data_")
    else:
        raise AssertionError("opened what nobody sealed")


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=300))
def test_the_window_is_a_set_with_an_edge(counters: list[int]) -> None:
    window, seen, greatest = ReplayWindow(), set(), 0
    for counter in counters:
        fresh = counter not in seen and greatest - counter < WINDOW
        assert window.accept(counter) is fresh
        if fresh:
            seen.add(counter)
            greatest = max(greatest, counter)


@given(st.integers(-(1 << 60), 1 << 60), st.integers(-(1 << 60), 1 << 60))
def test_stamps_round_trip_and_keep_their_order(one: int, other: int) -> None:
    assert tai64n.decode(tai64n.encode(one)) == one
    assert (tai64n.encode(one) < tai64n.encode(other)) is (one < other)


@given(st.lists(st.floats(0, 4e9), min_size=2))
def test_stamps_of_one_stamper_increase(times: list[float]) -> None:
    stamper = tai64n.Stamper()
    stamps = [stamper.stamp(time) for time in times]
    assert all(earlier < later for earlier, later in pairwise(stamps))
