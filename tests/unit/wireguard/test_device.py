"""Many peers behind one key: silence to strangers, replays, endpoints, load."""

import pytest

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, NotFoundError
from dhtvpn.wireguard import device as wg
from dhtvpn.wireguard.constants import UNKNOWN_PEERS_PER_S
from dhtvpn.wireguard.device import Device

UNIX_TIME = 1_700_000_000.0
ELSEWHERE = Endpoint("203.0.113.9", 999)


def initiation(pair, now: float = 0.0) -> bytes:
    pair.a.initiate(now, force=True)
    return pair.a.take()[-1]


def test_a_stranger_hears_nothing(pair, make_side) -> None:
    stranger = make_side("stranger", ELSEWHERE)
    stranger.meet(pair.b)
    stranger.initiate(0.0)
    pair.b.receive(stranger.take()[0], stranger.endpoint, 0.0)
    assert pair.b.take() == []
    assert pair.b.events == [wg.UnknownPeer(stranger.device.public_key)]
    assert pair.b.drops.as_dict() == {"wireguard.stranger": 1}


def test_strangers_are_reported_a_few_times_a_second(pair, make_side) -> None:
    stranger = make_side("stranger", ELSEWHERE)
    stranger.meet(pair.b)
    for number in range(3 * UNKNOWN_PEERS_PER_S):
        stranger.initiate(number / 100, force=True)
        pair.b.receive(stranger.take()[0], stranger.endpoint, number / 100)
    assert pair.b.count(wg.UnknownPeer) == UNKNOWN_PEERS_PER_S
    assert pair.b.drops.as_dict() == {"wireguard.stranger": 3 * UNKNOWN_PEERS_PER_S}


def test_another_preshared_key_gives_no_session(pair) -> None:
    pair.a.device.add_peer(pair.b.device.public_key, bytes(32))
    pair.a.initiate(0.0)
    pair.deliver()
    assert pair.a.events == []
    assert pair.a.drops.as_dict() == {"wireguard.response": 1}
    assert not pair.b.transport.ready(0.0)


def test_a_replayed_initiation_is_not_answered(pair) -> None:
    datagram = initiation(pair)
    pair.b.receive(datagram, pair.a.endpoint, 0.0)
    assert len(pair.b.take()) == 1
    pair.b.receive(datagram, ELSEWHERE, 1.0)
    assert pair.b.take() == []
    assert pair.b.peer.endpoint == pair.a.endpoint
    assert pair.b.drops.as_dict() == {"wireguard.replay": 1}


def test_replay_protection_outlives_a_restart(pair, make_side) -> None:
    datagram = initiation(pair)
    pair.b.receive(datagram, pair.a.endpoint, 0.0)
    kept = pair.b.peer.greatest_timestamp
    assert kept is not None and len(kept) == 12
    reborn = make_side("b", pair.b.endpoint)
    reborn.meet(pair.a)
    reborn.peer.greatest_timestamp = kept
    reborn.receive(datagram, pair.a.endpoint, 0.0)
    assert reborn.take() == []
    assert reborn.drops.as_dict() == {"wireguard.replay": 1}


def test_one_peer_is_answered_50_times_a_second_at_most(pair) -> None:
    answered = 0
    for number in range(100):
        now = number / 1000
        pair.b.receive(initiation(pair, now), pair.a.endpoint, now)
        answered += len(pair.b.take())
    assert 4 <= answered <= 6
    assert set(pair.b.drops.as_dict()) == {"wireguard.flood"}


def test_an_authenticated_initiation_moves_the_endpoint(pair) -> None:
    pair.connect()
    pair.b.receive(initiation(pair, 1.0), ELSEWHERE, 1.0)
    assert wg.EndpointLearned(pair.a.device.public_key, ELSEWHERE) in pair.b.events
    ((_, destination),) = pair.b.outgoing
    assert destination == pair.b.peer.endpoint == ELSEWHERE


def test_an_authenticated_response_moves_the_endpoint(pair) -> None:
    pair.b.receive(initiation(pair), pair.a.endpoint, 0.0)
    pair.a.receive(pair.b.take()[0], ELSEWHERE, 0.0)
    assert pair.a.peer.endpoint == ELSEWHERE
    assert pair.a.events[0] == wg.EndpointLearned(pair.b.device.public_key, ELSEWHERE)


@pytest.mark.parametrize("offset", [0, 1, 4, 8, 40, 88, 116, 131])
def test_an_altered_initiation_is_dropped_in_silence(pair, offset: int) -> None:
    datagram = bytearray(initiation(pair))
    datagram[offset] ^= 0x10
    pair.b.receive(bytes(datagram), ELSEWHERE, 0.0)
    assert pair.b.take() == []
    assert pair.b.events == []
    assert pair.b.drops.total() == 1
    assert pair.b.peer.endpoint == pair.a.endpoint


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "length"),
        (b"\1", "length"),
        (b"\1\0\0\0" + bytes(143), "length"),
        (b"\1\0\0\0" + bytes(144), "mac1"),
        (b"\2\0\0\0" + bytes(88), "mac1"),
        (b"\3\0\0\0" + bytes(60), "index"),
        (b"\4\0\0\0" + bytes(28), "type"),
        (b"\5\0\0\0" + bytes(28), "type"),
        (b"\1\0\0\1" + bytes(144), "type"),
    ],
)
def test_wrong_datagrams_are_counted(pair, datagram: bytes, reason: str) -> None:
    pair.b.device.handle_datagram(datagram, ELSEWHERE, 0.0, UNIX_TIME)
    assert pair.b.drops.as_dict() == {f"wireguard.{reason}": 1}
    assert pair.b.device.datagrams_to_send() == []


def test_a_response_is_taken_once(pair) -> None:
    pair.b.receive(initiation(pair), pair.a.endpoint, 0.0)
    (response,) = pair.b.take()
    pair.a.receive(response, pair.b.endpoint, 0.0)
    pair.a.receive(response, pair.b.endpoint, 0.0)
    assert pair.a.count(wg.KeypairReady) == 1
    assert pair.a.drops.as_dict() == {"wireguard.index": 1}


def test_under_load_a_cookie_must_be_shown(pair, make_side) -> None:
    loaded = make_side("b", pair.b.endpoint, under_load=lambda _: True)
    loaded.meet(pair.a)
    pair.b = loaded
    first = initiation(pair)
    loaded.receive(first, pair.a.endpoint, 0.0)
    (reply,) = loaded.take()
    assert (reply[0], len(reply)) == (3, 64)
    assert loaded.peer.greatest_timestamp is None
    pair.a.receive(reply, pair.b.endpoint, 0.0)
    assert pair.a.take() == []  # section 5.4.7: wait for the next attempt
    pair.run(6.0)
    assert pair.a.transport.ready(6.0) and loaded.transport.ready(6.0)
    assert loaded.drops.as_dict() == {"wireguard.no_cookie": 1}


def test_under_load_each_source_is_answered_at_its_rate(pair, make_side) -> None:
    loaded = make_side("b", pair.b.endpoint, under_load=lambda _: True)
    loaded.meet(pair.a)
    loaded.receive(initiation(pair), pair.a.endpoint, 0.0)
    pair.a.receive(loaded.take()[0], pair.b.endpoint, 0.0)
    for number in range(20):
        now = 1.0 + number / 1000
        loaded.receive(initiation(pair, now), pair.a.endpoint, now)
    assert loaded.drops.as_dict()["wireguard.rate"] == 15


def test_a_flood_of_initiations_puts_a_device_under_load(pair) -> None:
    datagram = initiation(pair)
    for number in range(300):
        pair.b.receive(datagram, ELSEWHERE, number / 1000)
    counts = pair.b.drops.as_dict()
    assert counts == {"wireguard.no_cookie": 100, "wireguard.replay": 199}
    assert {len(reply) for reply in pair.b.take()} == {64, 92}


def test_a_forged_cookie_reply_changes_nothing(pair) -> None:
    index = initiation(pair)[4:8]
    pair.a.receive(b"\3\0\0\0" + index + bytes(56), ELSEWHERE, 0.0)
    assert pair.a.drops.as_dict() == {"wireguard.cookie": 1}
    pair.a.initiate(5.0, force=True)
    assert pair.a.take()[0].endswith(bytes(16))


def test_peers_are_added_found_changed_and_removed(pair) -> None:
    device, key = pair.a.device, pair.b.device.public_key
    assert device.peer(key) is pair.a.peer
    assert device.add_peer(key, bytes([9]) * 32, 25.0) is pair.a.peer
    assert (pair.a.peer.preshared_key, pair.a.peer.keepalive_s) == (bytes([9]) * 32, 25.0)
    pair.a.initiate(0.0)
    device.remove_peer(key)
    device.remove_peer(key)
    assert device.peers == []
    assert device.next_timeout() is None
    assert len(device._around.indices) == 0
    with pytest.raises(NotFoundError):
        device.peer(key)


def test_what_is_no_peer_is_refused(pair) -> None:
    device = pair.a.device
    with pytest.raises(ValueError, match="32 bytes"):
        device.add_peer(b"short", bytes(32))
    with pytest.raises(ValueError, match="own peer"):
        device.add_peer(device.public_key, bytes(32))
    with pytest.raises(DecodeError, match="low_order"):
        device.add_peer(bytes(32), bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        Device(b"short", bytes, drops=Drops())


def test_a_removed_peers_messages_are_a_strangers(pair) -> None:
    pair.connect()
    pair.b.device.remove_peer(pair.a.device.public_key)
    pair.b.device.handle_datagram(initiation(pair, 1.0), pair.a.endpoint, 1.0, UNIX_TIME)
    assert pair.b.drops.as_dict() == {"wireguard.stranger": 1}


def test_indices_are_not_leaked_by_many_handshakes(pair) -> None:
    for number in range(50):
        pair.now = number * 10.0
        (pair.a if number % 2 else pair.b).initiate(pair.now, force=True)
        pair.deliver()
    for side in (pair.a, pair.b):
        assert len(side.device._around.indices) <= 3
        assert set(side.transport.indices()) == set(side.device._around.indices._owners)
