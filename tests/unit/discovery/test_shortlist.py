"""The shortlist of a lookup: order, slots, soft timeouts, disjoint paths, end."""

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.disjoint_path import MAX_ASKED, MAX_ENTRIES, OWN_ANSWERS
from dhtvpn.discovery.shortlist import ALPHA, PATH_ALPHA, PATHS, Shortlist
from dhtvpn.endpoint import Endpoint

TARGET = bytes(20)


def contact(rank, port=1):
    return Contact(rank.to_bytes(20, "big"), Endpoint("198.18.0.1", port))


def contacts(*ranks):
    return [contact(rank) for rank in ranks]


def one_path(*ranks, replicas=8):
    shortlist = Shortlist(TARGET, paths=1, replicas=replicas)
    shortlist.start(contacts(*ranks))
    return shortlist


def drain(shortlist):
    asked = []
    while (one := shortlist.next_to_ask()) is not None:
        asked.append(one)
    return asked


def run_to_end(shortlist, answer):
    """Ask until nobody is left; ``answer`` maps a contact to those it names, None when it is dead."""
    asked = []
    while batch := drain(shortlist):
        asked += batch
        for one in batch:
            told = answer(one)
            if told is None:
                shortlist.failed(one)
            else:
                shortlist.answered(one, told)
    return asked


def test_asks_the_closest_first_so_many_at_a_time():
    shortlist = one_path(5, 1, 6, 4, 2, 3)
    assert drain(shortlist) == contacts(1, 2, 3, 4)
    assert shortlist.in_flight() == ALPHA
    shortlist.answered(contact(1))
    assert drain(shortlist) == contacts(5)


def test_ends_when_the_closest_have_answered():
    shortlist = one_path(*range(1, 30))
    while batch := drain(shortlist):
        for one in batch:
            assert not shortlist.finished()
            shortlist.answered(one)
    assert shortlist.finished()
    assert shortlist.closest_answered() == contacts(*range(1, 9))


def test_failed_nodes_are_replaced_by_the_next_closest():
    shortlist = one_path(*range(1, 30))
    asked = run_to_end(shortlist, lambda one: None if one == contact(1) else [])
    assert asked == contacts(*range(1, 10))
    assert shortlist.closest_answered() == contacts(*range(2, 10))


def test_a_slow_query_frees_its_slot_and_still_counts():
    shortlist = one_path(*range(1, 7), replicas=4)
    assert drain(shortlist) == contacts(1, 2, 3, 4)
    shortlist.slow(contact(1))
    assert drain(shortlist) == contacts(5)
    for rank in (2, 3, 4, 5, 1):
        shortlist.answered(contact(rank))
    assert shortlist.closest_answered() == contacts(1, 2, 3, 4)
    assert shortlist.finished()


def test_waits_for_slow_ones_while_nobody_has_answered():
    shortlist = one_path(1, 2)
    for one in drain(shortlist):
        shortlist.slow(one)
    assert not shortlist.finished()
    shortlist.failed(contact(1))
    assert not shortlist.finished()
    shortlist.answered(contact(2))
    assert shortlist.finished()


def test_a_node_with_two_addresses_counts_once():
    shortlist = Shortlist(TARGET, replicas=2)
    shortlist.start([contact(1, 1), contact(1, 2), contact(2)])
    assert set(drain(shortlist)) == {contact(1, 1), contact(2)}
    shortlist.failed(contact(1, 1))
    assert drain(shortlist) == [contact(1, 2)]


def test_is_empty_and_finished_without_contacts():
    shortlist = Shortlist(TARGET)
    assert drain(shortlist) == []
    assert shortlist.finished()
    assert shortlist.closest_answered() == []


def test_paths_start_apart_from_each_other_all_of_them_close():
    shortlist = Shortlist(TARGET)
    shortlist.start(contacts(*range(1, 21)))
    assert sorted(drain(shortlist), key=lambda c: c.node_id) == contacts(*range(1, PATHS * PATH_ALPHA + 1))


def test_what_a_node_names_reaches_its_own_path_only():
    shortlist = Shortlist(TARGET, paths=2, replicas=1)
    shortlist.start(contacts(1000, 1001))
    assert drain(shortlist) == contacts(1000, 1001)
    shortlist.answered(contact(1000), contacts(1, 2, 3))
    shortlist.answered(contact(1001), contacts(101, 102, 103))
    asked = run_to_end(shortlist, lambda _: [])
    assert set(asked) == set(contacts(1, 2, 3, 101, 102, 103)), "nobody is spared for being far"


def test_a_node_that_several_paths_hear_of_is_asked_by_one():
    shortlist = Shortlist(TARGET, paths=3)
    shortlist.start(contacts(1000, 1001, 1002))
    asked = run_to_end(shortlist, lambda _: contacts(*range(1, 9)))
    assert len(asked) == len(set(asked))
    assert shortlist.closest_answered() == contacts(*range(1, 9))


def test_a_path_without_contacts_takes_a_share_of_the_first_answer():
    shortlist = Shortlist(TARGET, paths=3)
    shortlist.start(contacts(1000))
    assert drain(shortlist) == contacts(1000)
    shortlist.answered(contact(1000), contacts(101, 102, 103))
    assert set(drain(shortlist)) == set(contacts(101, 102, 103))
    shortlist.answered(contact(101), contacts(1, 2, 3, 4, 5, 6, 7, 8))
    assert drain(shortlist) == contacts(1, 2)
    shortlist.answered(contact(102), contacts(11, 12, 13, 14))
    assert drain(shortlist) == contacts(11, 12)


def test_what_no_path_has_asked_of_the_closest_is_asked_in_the_end():
    """One path knows all of them, and ends for its own part after four."""
    shortlist = Shortlist(TARGET, paths=2, replicas=8)
    shortlist.start(contacts(1000, 2000))
    known = {contact(1000): contacts(*range(1, 9))}
    asked = run_to_end(shortlist, lambda one: known.get(one, []))
    assert set(asked) == {*contacts(1000, 2000), *contacts(*range(1, 9))}
    assert shortlist.closest_answered() == contacts(*range(1, 9))


def test_the_closest_that_have_answered_are_told_as_they_come():
    shortlist = one_path(1, 2, 3, 4, 5)
    drain(shortlist)
    shortlist.answered(contact(2))
    shortlist.answered(contact(4))
    assert shortlist.answered_among_closest(3) == contacts(2)
    shortlist.failed(contact(1))
    assert shortlist.answered_among_closest(3) == contacts(2, 4)


def test_floods_of_contacts_are_capped_and_end_one_path_only():
    shortlist = Shortlist(TARGET, paths=2)
    shortlist.start(contacts(100_000, 100_001))
    invented = iter(range(99_999, 0, -1))
    living = set(contacts(100_001, *range(200_000, 200_010)))
    asked, queries = [], 0
    while batch := drain(shortlist):
        for one in batch:
            queries += 1
            if one in living:
                asked.append(one)
                shortlist.answered(one, sorted(living, key=lambda c: c.node_id))
            else:
                shortlist.answered(one, [contact(next(invented)) for _ in range(8)])
            assert len(shortlist) <= 2 * MAX_ENTRIES
    assert shortlist.finished()
    assert queries <= 2 * MAX_ASKED
    assert len(asked) >= OWN_ANSWERS
