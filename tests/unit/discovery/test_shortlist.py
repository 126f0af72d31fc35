"""The shortlist of a lookup: order, slots, soft timeouts, end."""

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.shortlist import MAX_ASKED, MAX_ENTRIES, Shortlist
from dhtvpn.endpoint import Endpoint

TARGET = bytes(20)


def contact(rank, port=1):
    return Contact(rank.to_bytes(20, "big"), Endpoint("198.18.0.1", port))


def drain(shortlist):
    asked = []
    while (one := shortlist.next_to_ask()) is not None:
        asked.append(one)
    return asked


def test_asks_the_closest_first_alpha_at_a_time():
    shortlist = Shortlist(TARGET, alpha=2, replicas=3)
    shortlist.add(contact(n) for n in (5, 1, 4, 2, 3))
    assert drain(shortlist) == [contact(1), contact(2)]
    shortlist.answered(contact(1))
    assert drain(shortlist) == [contact(3)]


def test_ends_when_the_closest_have_answered():
    shortlist = Shortlist(TARGET, alpha=9, replicas=2)
    shortlist.add(contact(n) for n in (1, 2, 3))
    for one in drain(shortlist):
        assert not shortlist.finished()
        shortlist.answered(one)
    assert shortlist.finished()
    assert shortlist.closest_answered() == [contact(1), contact(2)]


def test_failed_nodes_are_replaced_by_the_next_closest():
    shortlist = Shortlist(TARGET, alpha=2, replicas=2)
    shortlist.add(contact(n) for n in (1, 2, 3))
    drain(shortlist)
    shortlist.failed(contact(1))
    assert drain(shortlist) == [contact(3)]
    shortlist.answered(contact(2))
    shortlist.answered(contact(3))
    assert shortlist.finished()
    assert shortlist.closest_answered() == [contact(2), contact(3)]


def test_a_slow_query_frees_its_slot_and_still_counts():
    shortlist = Shortlist(TARGET, alpha=1, replicas=2)
    shortlist.add(contact(n) for n in (1, 2, 3))
    assert drain(shortlist) == [contact(1)]
    shortlist.slow(contact(1))
    assert drain(shortlist) == [contact(2)]
    shortlist.answered(contact(2))
    shortlist.answered(contact(1))
    assert shortlist.closest_answered() == [contact(1), contact(2)]
    assert shortlist.finished()


def test_waits_for_slow_ones_while_nobody_has_answered():
    shortlist = Shortlist(TARGET, alpha=2, replicas=2)
    shortlist.add([contact(1), contact(2)])
    for one in drain(shortlist):
        shortlist.slow(one)
    assert not shortlist.finished()
    shortlist.failed(contact(1))
    assert not shortlist.finished()
    shortlist.answered(contact(2))
    assert shortlist.finished()


def test_a_node_with_two_addresses_counts_once():
    shortlist = Shortlist(TARGET, alpha=9, replicas=2)
    shortlist.add([contact(1, 1), contact(1, 2), contact(2)])
    assert drain(shortlist) == [contact(1, 1), contact(2)]
    shortlist.failed(contact(1, 1))
    assert drain(shortlist) == [contact(1, 2)]


def test_is_empty_and_finished_without_contacts():
    shortlist = Shortlist(TARGET)
    assert drain(shortlist) == []
    assert shortlist.finished()
    assert shortlist.closest_answered() == []


def test_floods_of_contacts_are_capped():
    shortlist = Shortlist(TARGET, alpha=1)
    for start in range(1, 10_000, 8):
        shortlist.add(contact(10_000 - n) for n in range(start, start + 8))
        one = shortlist.next_to_ask()
        if one is not None:
            shortlist.failed(one)
        assert len(shortlist._states) <= MAX_ENTRIES
    while (one := shortlist.next_to_ask()) is not None:
        shortlist.failed(one)
    assert shortlist._asked == MAX_ASKED
    assert shortlist.finished()
