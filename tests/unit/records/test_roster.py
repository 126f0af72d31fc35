from dataclasses import replace

import pytest

from dhtvpn.records import roster as rosters
from dhtvpn.records.envelope import MAX_LIFETIME_S, OpenedRecord
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import MAX_MEMBERS, MAX_REMEMBERED, Change, Roster

NOW = 1_738_800_000


def opened(
    number: int = 1, sequence: int = 10, expires: int = NOW + 600, *, name: str = "a", leaving: bool = False
) -> OpenedRecord:
    record = EndpointRecord(number.to_bytes(32), name, bytes(16), (), 0, 0, 0, leaving)
    return OpenedRecord(record, sequence, expires)


@pytest.fixture
def roster() -> Roster:
    return Roster()


def test_new_updated_unchanged_stale(roster: Roster) -> None:
    assert roster.offer(opened(sequence=10), NOW) is Change.NEW
    assert roster.offer(opened(sequence=10), NOW) is Change.UNCHANGED
    assert roster.offer(opened(sequence=11, name="b"), NOW) is Change.UPDATED
    assert roster.offer(opened(sequence=10), NOW) is Change.STALE
    assert [best.record.name for best in roster.as_list()] == ["b"]
    found = roster.get((1).to_bytes(32))
    assert found is not None
    assert found.sequence == 11


def test_a_newer_record_that_says_the_same_counts_from_its_number(roster: Roster) -> None:
    roster.offer(opened(sequence=10, expires=NOW + 600), NOW)
    assert roster.offer(opened(sequence=12, expires=NOW + 500), NOW) is Change.UNCHANGED
    assert roster.as_list() == [opened(sequence=12, expires=NOW + 600)]
    assert roster.offer(opened(sequence=11, name="old"), NOW) is Change.STALE


def test_of_two_records_with_one_number_the_first_stays(roster: Roster) -> None:
    roster.offer(opened(name="first"), NOW)
    assert roster.offer(opened(name="second"), NOW) is Change.STALE
    assert roster.as_list() == [opened(name="first")]


def test_expired_records_are_stale_and_members_leave_in_time(roster: Roster) -> None:
    assert roster.offer(opened(1, expires=NOW), NOW) is Change.STALE
    roster.offer(opened(2, expires=NOW + 10), NOW)
    roster.offer(opened(3, expires=NOW + 20), NOW)
    assert roster.expire(NOW + 9) == []
    assert roster.expire(NOW + 10) == [(2).to_bytes(32)]
    assert [best.record.node_key for best in roster.as_list()] == [(3).to_bytes(32)]


def test_an_older_record_with_a_later_expiry_cannot_come_back(roster: Roster) -> None:
    roster.offer(opened(sequence=10, expires=NOW + 10), NOW)
    roster.expire(NOW + 10)
    assert len(roster) == 0
    assert roster.offer(opened(sequence=9, expires=NOW + 3600), NOW + 11) is Change.STALE
    assert roster.offer(opened(sequence=10, expires=NOW + 3600), NOW + 11) is Change.NEW


def test_numbers_are_forgotten_when_nothing_older_can_be_left(roster: Roster) -> None:
    roster.offer(opened(sequence=10, expires=NOW + 10), NOW)
    roster.expire(NOW + MAX_LIFETIME_S - 1)
    old = opened(sequence=1, expires=NOW + 9 * MAX_LIFETIME_S)
    assert roster.offer(old, NOW + MAX_LIFETIME_S - 1) is Change.STALE
    roster.expire(NOW + MAX_LIFETIME_S)
    assert roster.offer(old, NOW + MAX_LIFETIME_S) is Change.NEW


def test_whoever_leaves_is_gone_until_something_newer(roster: Roster) -> None:
    roster.offer(opened(sequence=10), NOW)
    assert roster.offer(opened(sequence=11, leaving=True), NOW) is Change.UPDATED
    assert roster.as_list() == []
    assert roster.offer(opened(sequence=11, leaving=True), NOW) is Change.STALE
    assert roster.offer(opened(sequence=10), NOW) is Change.STALE
    assert roster.offer(opened(sequence=12), NOW) is Change.NEW


def test_a_farewell_of_somebody_unknown_counts_too(roster: Roster) -> None:
    assert roster.offer(opened(sequence=11, leaving=True), NOW) is Change.STALE
    assert roster.offer(opened(sequence=10), NOW) is Change.STALE


def test_is_in_the_order_of_node_keys(roster: Roster) -> None:
    for number in (3, 1, 2):
        roster.offer(opened(number), NOW)
    assert [best.record.node_key[-1] for best in roster.as_list()] == [1, 2, 3]


def test_has_room_for_so_many_members_and_keeps_those_it_has(roster: Roster) -> None:
    for number in range(MAX_MEMBERS):
        assert roster.offer(opened(number), NOW) is Change.NEW
    assert roster.offer(opened(MAX_MEMBERS), NOW) is Change.FULL
    assert roster.offer(opened(0, sequence=11, name="b"), NOW) is Change.UPDATED
    assert len(roster) == MAX_MEMBERS
    assert roster.offer(opened(0, sequence=12, leaving=True), NOW) is Change.UPDATED
    assert roster.offer(opened(MAX_MEMBERS), NOW) is Change.NEW


def test_remembers_so_many_numbers_and_those_of_present_members_first(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rosters, "MAX_MEMBERS", 2)
    monkeypatch.setattr(rosters, "MAX_REMEMBERED", 4)
    roster.offer(opened(0), NOW)
    for number in range(1, 20):
        roster.offer(opened(number, leaving=True), NOW)
    assert len(roster._seen) == 4
    assert roster.offer(opened(0, sequence=9), NOW) is Change.STALE
    assert roster.offer(opened(19, sequence=9), NOW) is Change.STALE
    assert MAX_REMEMBERED > MAX_MEMBERS


def test_offered_records_are_not_altered(roster: Roster) -> None:
    first = opened(sequence=10)
    copy = replace(first)
    roster.offer(first, NOW)
    roster.offer(opened(sequence=11, expires=NOW + 900), NOW)
    assert first == copy
