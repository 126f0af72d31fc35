"""The timers of sections 6.2 to 6.5 and the handshake's states, on a virtual clock."""

from itertools import pairwise

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.wireguard import device as wg
from dhtvpn.wireguard.constants import REKEY_TIMEOUT_JITTER
from dhtvpn.wireguard.handshake_state import TRANSITIONS, HandshakeState, Step

UNIX_TIME = 1_700_000_000.0


def test_a_handshake_and_its_confirmation(pair) -> None:
    pair.a.initiate(0.0)
    assert pair.a.peer.state is HandshakeState.INITIATED
    pair.deliver()
    ready, keepalive = pair.a.events
    assert isinstance(ready, wg.KeypairReady) and ready.keypair.initiator
    assert keepalive == wg.SendKeepalive(pair.b.device.public_key)
    assert [type(event) for event in pair.b.events] == [wg.KeypairReady]
    assert pair.a.peer.state is HandshakeState.IDLE
    assert pair.a.peer.last_handshake == pair.b.peer.last_handshake == 0.0
    assert pair.b.transport.ready(0.0)


def test_an_unanswered_initiation_is_repeated_for_90_s_then_given_up(pair) -> None:
    pair.a.initiate(0.0)
    sent = [(0.0, pair.a.take()[0])]
    while not pair.a.count(wg.HandshakeFailed):
        pair.now = pair.a.device.next_timeout()
        pair.a.wake(pair.now)
        sent += [(pair.now, datagram) for datagram in pair.a.take()]
    assert 90 <= pair.now <= 97
    assert 17 <= len(sent) <= 19
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(sent)]
    assert all(5.0 <= gap <= 5.0 + REKEY_TIMEOUT_JITTER for gap in gaps)
    assert len(set(gaps)) > 5
    assert len({datagram[8:40] for _, datagram in sent}) == len(sent)  # a fresh ephemeral key each time
    assert pair.a.peer.state is HandshakeState.IDLE
    assert len(pair.a.device._around.indices) == 0


def test_a_lost_message_costs_one_retry(pair) -> None:
    for lose_response in (False, True):
        pair.a.initiate(pair.now, force=True)
        if lose_response:
            pair.b.receive(pair.a.take()[0], pair.a.endpoint, pair.now)
            pair.b.take()
        else:
            pair.a.take()
        pair.run(pair.now + 6)
        assert pair.a.peer.last_handshake == pytest.approx(pair.now - 6 + 5, abs=0.4)


def test_initiate_does_nothing_while_one_is_under_way(pair) -> None:
    pair.a.initiate(0.0)
    pair.a.initiate(1.0)
    assert len(pair.a.take()) == 1
    pair.a.initiate(2.0, force=True)
    assert len(pair.a.take()) == 1


def test_initiate_waits_five_seconds_after_the_last_initiation(pair) -> None:
    pair.connect()
    pair.a.initiate(1.0)
    assert pair.a.take() == []
    pair.run(4.9)
    assert pair.a.count(wg.KeypairReady) == 0
    pair.run(5.1)
    assert pair.a.count(wg.KeypairReady) == 1


def test_without_an_endpoint_the_handshake_waits_for_one(make_side) -> None:
    a, b = make_side("a", Endpoint("192.0.2.1", 1)), make_side("b", Endpoint("192.0.2.2", 2))
    a.meet(b, endpoint=False)
    b.meet(a, endpoint=False)
    a.initiate(0.0)
    assert a.peer.state is HandshakeState.WAITING
    assert a.take() == []
    assert a.device.next_timeout() is None
    a.peer.set_endpoint(b.endpoint)
    assert a.device.next_timeout() <= 200.0
    a.wake(200.0)
    b.receive(a.take()[0], a.endpoint, 200.0)
    assert b.events[0] == wg.EndpointLearned(a.device.public_key, a.endpoint)
    a.receive(b.take()[0], b.endpoint, 200.0)
    assert a.count(wg.KeypairReady) == 1


def test_a_waiting_handshake_is_settled_by_the_peers_own(pair) -> None:
    pair.b.peer.set_endpoint(None)
    pair.b.initiate(0.0)
    assert pair.b.peer.state is HandshakeState.WAITING
    pair.connect()
    assert pair.b.peer.state is HandshakeState.IDLE
    pair.run(5.0)
    assert pair.b.count(wg.KeypairReady) == 0


def test_the_initiator_rekeys_upon_sending_after_120_s(pair) -> None:
    pair.connect()
    pair.now = 119.0
    assert pair.a.send(b"x", pair.now)
    pair.deliver()
    assert pair.a.count(wg.KeypairReady) == 0
    pair.now = 120.0
    pair.b.send(b"x", pair.now)
    pair.deliver()
    pair.run(120.0)
    assert pair.b.count(wg.KeypairReady) == 0  # the responder leaves it to the initiator
    pair.a.send(b"x", pair.now)
    pair.run(120.0)
    assert pair.a.count(wg.KeypairReady) == 1
    assert pair.a.events[-2].keypair.initiator
    assert pair.a.transport._slots.current.local_index == pair.b.transport._slots.current.remote_index


def test_the_initiator_rekeys_upon_receiving_after_165_s(pair) -> None:
    pair.connect()
    pair.now = 164.0
    pair.b.send(b"x", pair.now)
    pair.deliver()
    pair.a.device.next_timeout()
    assert pair.a.peer.state is HandshakeState.IDLE
    pair.now = 166.0
    pair.b.send(b"x", pair.now)
    pair.deliver()
    pair.run(166.0)
    assert pair.a.count(wg.KeypairReady) == 1


def test_after_180_s_nothing_is_sent_before_a_new_handshake(pair) -> None:
    pair.connect()
    pair.now = 181.0
    assert not pair.b.send(b"x", pair.now)
    pair.run(181.0)
    assert pair.b.count(wg.KeypairReady) == 1
    assert pair.b.send(b"x", pair.now)
    pair.deliver()
    assert pair.a.delivered[0].startswith(b"x")


def test_a_silent_receiver_sends_one_keepalive_after_10_s(pair) -> None:
    pair.connect()
    pair.now = 20.0
    pair.a.send(b"x", pair.now)
    pair.deliver()
    pair.run(29.9)
    assert pair.b.count(wg.SendKeepalive) == 0
    pair.run(100.0)
    assert pair.b.count(wg.SendKeepalive) == 1
    assert pair.a.count(wg.SendKeepalive) == pair.a.count(wg.KeypairReady) == 0


def test_a_receiver_that_keeps_receiving_keeps_sending_keepalives(pair) -> None:
    pair.connect()
    for second in range(60):
        pair.run(20.0 + second)
        pair.a.send(b"x", pair.now)
        pair.deliver()
    assert 5 <= pair.b.count(wg.SendKeepalive) <= 6
    assert pair.a.count(wg.KeypairReady) == 0


def test_an_answer_saves_the_keepalive(pair) -> None:
    pair.connect()
    pair.now = 20.0
    pair.a.send(b"ping", pair.now)
    pair.deliver()
    pair.now = 20.5
    pair.b.send(b"pong", pair.now)
    pair.deliver()
    pair.run(31.0)
    assert pair.b.count(wg.SendKeepalive) == 0
    assert pair.a.count(wg.SendKeepalive) == 1


def test_sent_and_received_in_one_report_counts_as_received_last(pair) -> None:
    """The engine reports both at once; in either order, the peer is alive and gets a keepalive."""
    pair.connect()
    for order in (("data_sent", "data_received"), ("data_received", "data_sent")):
        pair.now += 20.0
        for occasion in order:
            getattr(pair.a.peer, occasion)(pair.now)
        pair.a.events.clear()
        pair.run(pair.now + 20.0)
        assert pair.a.count(wg.SendKeepalive) == 1
        assert pair.a.count(wg.KeypairReady) == 0


def test_silence_after_data_was_sent_makes_a_new_handshake_after_15_s(pair) -> None:
    pair.connect()
    pair.now = 50.0
    pair.a.send(b"x", pair.now)
    pair.a.take()
    pair.run(64.9)
    assert pair.a.count(wg.KeypairReady) == 0
    pair.run(65.5)
    assert pair.a.count(wg.KeypairReady) == 1


def test_a_keepalive_is_answer_enough(pair) -> None:
    pair.connect()
    pair.now = 50.0
    pair.a.send(b"x", pair.now)
    pair.deliver()
    pair.run(100.0)
    assert pair.a.count(wg.KeypairReady) == 0


def test_persistent_keepalives_keep_a_session_for_ever(make_side, pair) -> None:
    pair.a.meet(pair.b, keepalive_s=25.0)
    pair.connect()
    pair.run(24.9)
    assert pair.a.count(wg.SendKeepalive) == 0
    pair.run(25.0)
    assert pair.a.count(wg.SendKeepalive) == 1
    pair.run(1000.0)
    assert 5 <= pair.a.count(wg.KeypairReady) <= 8
    assert pair.a.transport.ready(1000.0)
    assert pair.a.count(wg.KeypairsErased) == pair.b.count(wg.KeypairsErased) == 0


def test_persistent_keepalives_start_over_after_a_long_outage(pair) -> None:
    pair.a.meet(pair.b, keepalive_s=25.0)
    pair.connect()
    pair.run(400.0, deliver=False)
    pair.a.take()
    assert pair.a.count(wg.HandshakeFailed) >= 1
    pair.run(430.0)
    assert pair.a.transport.ready(pair.now)


def test_everything_is_erased_after_540_s(pair) -> None:
    pair.connect()
    pair.run(539.9)
    assert pair.a.count(wg.KeypairsErased) == 0
    pair.run(541.0)
    assert pair.a.count(wg.KeypairsErased) == pair.b.count(wg.KeypairsErased) == 1
    assert pair.a.transport.indices() == []
    assert len(pair.a.device._around.indices) == 0
    assert pair.a.device.next_timeout() is None


def test_both_initiate_at_once_and_settle_on_one_keypair(pair) -> None:
    pair.a.initiate(0.0)
    pair.b.initiate(0.0)
    pair.deliver()
    assert pair.a.transport.ready(0.0) and pair.b.transport.ready(0.0)
    ours, theirs = pair.a.transport._slots.current, pair.b.transport._slots.current
    assert ours.local_index == theirs.remote_index
    for side in (pair.a, pair.b):
        assert side.peer._slots.current.local_index == side.transport._slots.current.local_index
        assert side.send(b"after", 0.0)
    pair.deliver()
    assert pair.a.delivered[0][:5] == pair.b.delivered[0][:5] == b"after"


def test_needs_handshake_waits_for_a_confirmation_on_its_way(pair) -> None:
    pair.a.initiate(0.0)
    pair.b.receive(pair.a.take()[0], pair.a.endpoint, 0.0)
    pair.b.peer.needs_handshake(0.5, UNIX_TIME)
    assert pair.b.peer.state is HandshakeState.IDLE
    pair.b.peer.needs_handshake(5.0, UNIX_TIME)
    assert pair.b.peer.state is HandshakeState.INITIATED


def test_a_restarted_peer_is_taken_back_at_once(pair, make_side) -> None:
    """It has the same keys, but no sessions; its new initiation voids nothing before it is confirmed."""
    pair.connect()
    old_transport = pair.a.transport
    reborn = make_side("a", pair.a.endpoint)
    reborn.meet(pair.b)
    pair.a = reborn
    pair.now = 1.0
    pair.connect()
    assert pair.b.send(b"welcome back", pair.now)
    pair.deliver()
    assert pair.a.delivered[0].startswith(b"welcome back")
    assert old_transport.ready(1.0)


def test_every_transition_ends_in_a_known_state() -> None:
    assert {state for state, _ in TRANSITIONS} == set(HandshakeState)
    assert {step for _, step in TRANSITIONS} == set(Step)
    assert all(TRANSITIONS[state, Step.STOPPED] is HandshakeState.IDLE for state in HandshakeState)
    assert all(TRANSITIONS[state, Step.CONFIRMED] is HandshakeState.IDLE for state in HandshakeState)


def test_no_key_in_repr(pair) -> None:
    shown = repr((pair.a.peer, pair.a.device._around))
    assert repr(pair.a.peer.preshared_key) not in shown
    assert repr(pair.a.device._around.local.private_key) not in shown
