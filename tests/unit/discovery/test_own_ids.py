"""Our own ids: who may say where we are, and what follows from it."""

import random

import pytest

from dhtvpn.discovery.node_ids import fits
from dhtvpn.discovery.own_ids import AGREEING, MOVE_EVERY_S, WITNESSES, OwnIds
from dhtvpn.endpoint import Endpoint

HOME, AWAY = Endpoint("203.0.113.9", 4690), Endpoint("198.51.100.77", 1024)
HOME6 = Endpoint("2001:db8:9::9", 4690)


def own_ids(families=(4, 6), seed=1, **options):
    return OwnIds(families, random.Random(seed).randbytes, **options)


def witness(number, family=4):
    return Endpoint(f"198.18.{number}.1" if family == 4 else f"2001:db8:{number:x}::1", 4690)


def told(own, address, witnesses, now=0.0):
    return [own.seen_as(address, witness(number, 6 if address.is_ipv6 else 4), now) for number in witnesses]


def test_several_who_agree_bind_the_id_of_their_family_only():
    own = own_ids()
    before = own.of(6)
    assert told(own, HOME, range(AGREEING)) == [None] * (AGREEING - 1) + [4]
    assert fits(own.of(4), HOME.host) and own.address(4) == HOME.host
    assert own.of(6) == before and own.address(6) is None
    assert told(own, HOME6, range(AGREEING))[-1] == 6
    assert fits(own.of(6), HOME6.host)
    assert own.towards(HOME) == own.of(4) and own.towards(HOME6) == own.of(6)
    assert own.all() == [own.of(4), own.of(6)]


@pytest.mark.parametrize(
    "liars",
    [
        [Endpoint("198.18.5.1", port) for port in range(1, 200)],
        [Endpoint(f"198.18.5.{host}", 4690) for host in range(1, 250)],
        [Endpoint(f"198.18.{5 + host % 2}.{host}", 4690) for host in range(1, 250)],
    ],
)
def test_nobody_alone_moves_it_however_many_addresses_he_has_in_one_prefix_or_two(liars):
    own = own_ids()
    before = own.of(4)
    assert [own.seen_as(AWAY, liar, 0.0) for liar in liars] == [None] * len(liars)
    assert own.of(4) == before


def test_of_one_ipv6_site_all_are_one_witness():
    own = own_ids()
    liars = [Endpoint(f"2001:db8:5:{number:x}::1", 4690) for number in range(100)]
    assert not any(own.seen_as(HOME6, liar, 0.0) for liar in liars)


def test_a_minority_does_not_move_it():
    own = own_ids()
    told(own, HOME, range(WITNESSES))
    before = own.of(4)
    half = range(WITNESSES // 2)
    assert told(own, AWAY, half, 1000.0) == [None] * len(half)
    assert own.of(4) == before
    assert told(own, AWAY, [WITNESSES // 2], 1000.0) == [4]
    assert fits(own.of(4), AWAY.host)


def test_it_moves_once_in_a_while_only():
    own = own_ids()
    told(own, HOME, range(WITNESSES), 100.0)
    assert not any(told(own, AWAY, range(WITNESSES), 100.0 + MOVE_EVERY_S - 1))
    assert any(told(own, AWAY, range(WITNESSES), 100.0 + MOVE_EVERY_S))


def test_old_witnesses_give_way_to_new_ones():
    own = own_ids()
    told(own, HOME, range(WITNESSES))
    assert any(told(own, AWAY, range(50, 50 + WITNESSES), 1000.0))
    assert len(own._own[4].seen) == WITNESSES


@pytest.mark.parametrize(
    ("seen", "by"),
    [
        (Endpoint("192.168.1.5", 1), Endpoint("198.18.1.1", 1)),
        (HOME, Endpoint("192.168.1.1", 1)),
        (HOME, Endpoint("127.0.0.1", 1)),
        (HOME6, Endpoint("198.18.1.1", 1)),
        (HOME, Endpoint("2001:db8::1", 1)),
    ],
)
def test_who_is_inside_or_of_the_other_family_is_no_witness(seen, by):
    own = own_ids()
    assert own.seen_as(seen, by, 0.0) is None
    assert not own._own[4].seen and not own._own[6].seen


def test_an_id_that_fits_already_stays_when_the_address_is_learnt():
    before = own_ids(addresses=[HOME.host]).of(4)
    own = own_ids(seed=2, ids={4: before})
    assert not any(told(own, HOME, range(AGREEING)))
    assert own.of(4) == before and own.address(4) == HOME.host


def test_an_address_of_our_own_on_the_internet_needs_no_witness():
    own = own_ids(addresses=["192.168.1.2", HOME.host, "fe80::1", HOME6.host])
    assert fits(own.of(4), HOME.host) and fits(own.of(6), HOME6.host)
    assert own.address(4) == HOME.host
    inside = own_ids(addresses=["192.168.1.2", "fd00::1"])
    assert inside.address(4) is None and inside.address(6) is None
    assert any(told(own, AWAY, range(WITNESSES), 1e3)), "the others know better: their replies reach us there"


def test_a_restart_keeps_the_ids_that_are_still_right():
    before = own_ids()
    told(before, HOME, range(AGREEING))
    after = own_ids(seed=2)
    assert after.restore(before.state()) == [4, 6]
    assert after.state() == before.state()
    moved = own_ids(seed=3, addresses=[AWAY.host])
    assert moved.restore(before.state()) == [6]
    assert fits(moved.of(4), AWAY.host) and moved.of(6) == before.of(6)


@pytest.mark.parametrize(
    "state",
    [
        {"4": {"id": "00", "address": None}},
        {"4": {"id": "zz" * 20, "address": None}},
        {"4": {"id": None, "address": None}},
        {"4": {"id": "00" * 20, "address": HOME.host}},
        {"4": {"id": "00" * 20, "address": "nowhere"}},
        {"5": {"id": "00" * 20, "address": None}},
        {"4": {"id": "00" * 20}},
        {"4": []},
    ],
)
def test_a_state_that_is_damaged_changes_nothing(state):
    own = own_ids()
    before = own.state()
    with pytest.raises((ValueError, TypeError, KeyError)):
        own.restore(state)
    assert own.state() == before


def test_an_id_has_20_octets():
    with pytest.raises(ValueError, match="20 octets"):
        own_ids(ids={4: b"short"})
