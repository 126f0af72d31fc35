"""The routing table: complete neighbours, failures, addresses, both families."""

import random

import pytest

from dhtvpn.discovery.contact import Contact, distance
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.routing import MAX_FAILURES, REFRESH_AFTER_S, K, RoutingTable
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
