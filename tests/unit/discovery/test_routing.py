"""The routing table: complete neighbours, failures, addresses, both families."""

import random

import pytest

from dhtvpn.discovery.contact import Contact, distance
from dhtvpn.discovery.node_ids import bound_id
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.routing import (
    CHECKED_S,
    FEW,
    MAX_FAILURES,
    MAX_STRAYS,
    REFRESH_AFTER_S,
    K,
    RoutingTable,
)
from dhtvpn.endpoint import Endpoint

OWN = bytes(20)


def contact(node_id, number=1, family=4):
    host = (
        f"10.0.{number // 256}.{number % 256}" if family == 4 else f"fd00::{number:x}"
    )  # exempt: any id fits
    return Contact(node_id, Endpoint(host, 4690))


def table_of(own_id, families, **options):
    own = OwnIds(families, random.Random(1).randbytes, ids=dict.fromkeys(families, own_id))
    return RoutingTable(own, 0.0, **options)


def filled(count, seed=1, own=OWN):
    rng = random.Random(seed)
    table = table_of(own, {4})
    contacts = [contact(rng.randbytes(20), number) for number in range(count)]
    for one in contacts:
        table.heard(one, 0.0, 0.01)
    return table, contacts


@pytest.mark.parametrize("seed", range(5))
def test_find_neighbors_is_complete_with_200_nodes(seed):
    table, _ = filled(200, seed)
    kept = {s.contact for s in table.good()}
    rng = random.Random(seed)
    for _ in range(200):
        target = rng.randbytes(20)
        expected = sorted(kept, key=lambda c: distance(c.node_id, target))[:K]
        assert table.find_neighbors(target, K, 4) == expected
        assert len(expected) == K


def test_the_nearest_nodes_to_us_are_always_kept():
    rng = random.Random(4)
    own = rng.randbytes(20)
    table, contacts = filled(1000, 5, own)
    nearest = sorted(contacts, key=lambda c: distance(c.node_id, own))[:K]
    assert table.find_neighbors(own, K, 4) == nearest
    assert len(table) < 250


def test_memory_is_bounded_by_buckets_and_replacements():
    table, _ = filled(5000)
    inside = len(table._tables[4].buckets)
    assert inside <= (K + 5 * K) * 12


def test_ids_at_the_edges_of_buckets_find_their_bucket():
    table = table_of(OWN, {4}, k=1)
    for number, power in enumerate((159, 158, 157, 0, 1)):
        for more, long_id in enumerate((1 << power, (1 << power) - 1 or 1, (1 << power) + 1)):
            table.heard(contact(long_id.to_bytes(20, "big"), 2 + 3 * number + more), 0.0, 0.01)
    table.heard(contact(b"\xff" * 20), 0.0, 0.01)
    assert len(table) >= 5


def test_a_contact_is_dropped_after_failures_and_replaced():
    table = table_of(OWN, {4}, k=2)
    far = [contact(bytes([0xF0 + n]) + bytes(19), n + 1) for n in range(4)]
    doubtful = [table.heard(one, 0.0, 0.01) for one in far]
    assert doubtful[-1] == far[0], "the least recently seen of the full bucket is to be pinged"
    for _ in range(MAX_FAILURES):
        table.failed(far[0])
    assert table.get(far[0].node_id, 4) is None
    assert len(table) == 2
    assert set(table.find_neighbors(far[0].node_id, 9, 4)) < set(far[1:])


def test_failures_are_forgiven_by_an_answer_and_may_be_ignored():
    table, (one,) = filled(1)
    assert not table.failed(one)
    assert table.to_tell(OWN, 9, 4, 0.0) == []
    assert table.find_neighbors(OWN, 9, 4) == [one]
    table.heard(one, 1.0, 0.01)
    assert table.good()[0].failures == 0
    for _ in range(9):
        assert not table.failed(one, may_drop=False)
    assert table.get(one.node_id, 4) is not None


def test_another_address_is_taken_only_once_the_old_one_fails():
    table, (one,) = filled(1)
    moved = Contact(one.node_id, Endpoint("10.9.9.9", 9))
    assert table.heard(moved, 1.0, 0.01) == one
    assert table.get(one.node_id, 4).contact == one
    table.failed(one)
    assert table.heard(moved, 2.0, 0.01) is None
    assert table.get(one.node_id, 4).contact == moved


def test_one_contact_per_id_and_family():
    table = table_of(OWN, {4, 6})
    four, six = contact(b"A" * 20, 1, 4), contact(b"A" * 20, 1, 6)
    table.heard(four, 0.0, 0.01)
    table.heard(six, 0.0, 0.01)
    assert len(table) == 1
    assert len(table.good()) == 2
    assert table.find_neighbors(OWN, 9, 6) == [six]


def test_own_id_and_foreign_families_stay_out():
    table = table_of(OWN, {4})
    table.heard(contact(OWN), 0.0, 0.01)
    table.heard(contact(b"A" * 20, 1, 6), 0.0, 0.01)
    assert len(table) == 0
    assert not table.wants(contact(b"A" * 20, 1, 6))
    assert table.find_neighbors(OWN, 9, 6) == []


def test_refresh_targets_lie_in_quiet_buckets_and_come_once():
    table, _ = filled(100)
    rng = random.Random(2)
    assert table.refresh_targets(REFRESH_AFTER_S - 1, rng.randbytes) == []
    targets = table.refresh_targets(REFRESH_AFTER_S + 1, rng.randbytes)
    assert len(targets) == len(table._tables[4].buckets._buckets)
    assert table.refresh_targets(REFRESH_AFTER_S + 2, rng.randbytes) == []


def test_contacts_are_sorted_by_round_trip():
    table = table_of(OWN, {4})
    for number, rtt_s in enumerate((0.3, 0.1, 0.2)):
        table.heard(contact(bytes([number + 1]) * 20, number), 0.0, rtt_s)
    assert [s.rtt_s for s in table.good()] == [0.1, 0.2, 0.3]


def public(number, seed=0, *, fits=True):
    """Somebody in a /24 of his own, where ids have to fit."""
    host = f"198.18.{number}.1"
    octets = random.Random(f"{number} {seed}").randbytes(20)
    return Contact(bound_id(host, lambda _: octets) if fits else octets, Endpoint(host, 4690))


def test_an_id_that_does_not_fit_has_no_place_beside_those_that_do():
    table = table_of(OWN, {4})
    strangers = [public(number, fits=False) for number in range(100, 200)]
    assert not any(table.wants(one) for one in strangers)
    for number in range(FEW):
        table.heard(public(number), 0.0, 0.01)
    for one in strangers:
        assert table.heard(one, 0.0, 0.01) is None
    assert len(table) == FEW
    assert all(contact.fits for contact in table.find_neighbors(OWN, 99, 4))


def test_a_few_strays_serve_while_there_is_nobody_else_and_nobody_is_told_of_them():
    table = table_of(OWN, {4})
    strays = [public(number, fits=False) for number in range(100, 150)]
    for one in strays:
        table.heard(one, 0.0, 0.01)
    assert set(table.find_neighbors(OWN, 99, 4)) == set(strays[:MAX_STRAYS])
    assert table.to_tell(OWN, 99, 4, 0.0) == []
    good = [public(number) for number in range(FEW)]
    for one in good:
        table.heard(one, 0.0, 0.01)
    assert set(table.find_neighbors(OWN, 99, 4)) == set(good)
    assert set(table.to_tell(OWN, 99, 4, 0.0)) == set(good)
    for _ in range(MAX_FAILURES):
        table.failed(strays[0])
    assert table.get(strays[0].node_id, 4) is None


def test_an_endpoint_has_one_id_the_last_that_it_gave():
    table = table_of(OWN, {4})
    before, after = public(1, seed=0), public(1, seed=1)
    stray = Contact(b"S" * 20, before.endpoint)
    for one in (before, after, stray, after):
        table.heard(one, 0.0, 0.01)
        assert [s.contact for s in table.good()] == [one]


def test_those_who_answered_lately_are_told_before_others():
    table = table_of(OWN, {4})
    long_ago, lately = [public(n) for n in range(20)], [public(n) for n in range(20, 26)]
    for one in long_ago:
        table.heard(one, 0.0, 0.01)
    for one in lately:
        table.heard(one, 100.0, 0.01)
    now = CHECKED_S + 50
    told = table.to_tell(OWN, 8, 4, now)
    assert set(told[:6]) == set(lately) and set(told[6:]) <= set(long_ago)
    for one in long_ago:
        table.failed(one)
    assert set(table.to_tell(OWN, 8, 4, now)) == set(lately), "who did not answer is not told at all"
    assert lately[0] not in table.to_tell(OWN, 8, 4, now, exclude=lately[0].node_id)


def test_who_should_be_told_but_was_not_heard_of_for_long_is_checked():
    table = table_of(OWN, {4})
    contacts = [public(n) for n in range(30)]
    for one in contacts:
        table.heard(one, 0.0, 0.01)
    assert table.to_check(OWN, 8, 4, CHECKED_S - 1) == []
    closest = table.find_neighbors(OWN, 8, 4)
    assert table.to_check(OWN, 8, 4, CHECKED_S) == closest
    table.failed(closest[0])
    assert table.to_check(OWN, 8, 4, CHECKED_S) == closest[1:]


def test_another_id_of_ours_loses_no_contact_that_has_a_place():
    rng = random.Random(3)
    own = OwnIds({4}, rng.randbytes, addresses=["198.51.100.1"])
    table = RoutingTable(own, 0.0)
    contacts = [public(number) for number in range(60)]
    for at, one in enumerate(contacts):
        table.heard(one, float(at), 0.01)
    known = {s.contact: (s.heard_at, s.since) for s in table._tables[4].buckets.everybody()}
    own._bind(own._own[4], "203.0.113.1")
    table.own_id_changed(4, 100.0)
    after = {s.contact: (s.heard_at, s.since) for s in table._tables[4].buckets.everybody()}
    assert after == known and len(known) == 60
    nearest = sorted(contacts, key=lambda c: distance(c.node_id, own.of(4)))[:8]
    assert table.find_neighbors(own.of(4), 8, 4) == nearest
