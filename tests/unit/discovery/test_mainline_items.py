"""Pages and salts: what fits, what is refused, and what an outsider cannot do."""

import os

import pytest

from dhtvpn.discovery.mainline_items import (
    MAX_PAGES,
    PAGE_ENTRIES,
    merge,
    open_page,
    page_salt,
    seal_page,
    slot_salt,
)
from dhtvpn.discovery.mainline_session import MAX_VALUE
from dhtvpn.discovery.storage import MAX_SLOTS_PER_TOPIC
from dhtvpn.errors import DecodeError
from dhtvpn.records.envelope import MAX_ENVELOPE
from dhtvpn.records.topic import Topic

TOPIC, OTHER = Topic.derive(bytes(32), 1), Topic.derive(bytes(32), 2)


def entries(count: int) -> dict[bytes, int]:
    return {number.to_bytes(8, "big"): number for number in range(1, count + 1)}


@pytest.mark.parametrize(("count", "room"), [(0, 8), (8, 8), (9, 24), (24, 24), (25, 56), (56, 56)])
def test_a_page_says_little_about_the_number_of_members(count, room):
    value = seal_page(TOPIC, 0, entries(count), os.urandom)
    assert len(value) == 24 + 16 * room + 16
    assert open_page(TOPIC, 0, value) == entries(count)


def test_everything_fits():
    assert len(seal_page(TOPIC, 0, entries(PAGE_ENTRIES), os.urandom)) <= MAX_VALUE
    assert MAX_ENVELOPE <= MAX_VALUE
    assert MAX_PAGES * PAGE_ENTRIES >= MAX_SLOTS_PER_TOPIC
    with pytest.raises(ValueError, match="room"):
        seal_page(TOPIC, 0, entries(PAGE_ENTRIES + 1), os.urandom)


def test_a_page_is_good_in_its_place_only():
    value = seal_page(TOPIC, 0, entries(3), os.urandom)
    for topic, number, data in (
        (OTHER, 0, value),
        (TOPIC, 1, value),
        (TOPIC, 0, value[:-1] + bytes([value[-1] ^ 1])),
    ):
        with pytest.raises(DecodeError) as caught:
            open_page(topic, number, data)
        assert caught.value.reason == "seal"
    for data in (b"", value[:-1], value + b"x", bytes(990)):
        with pytest.raises(DecodeError) as caught:
            open_page(TOPIC, 0, data)
        assert caught.value.reason == "size"


def test_salts_have_nothing_in_common():
    salts = [page_salt(topic, number) for topic in (TOPIC, OTHER) for number in range(MAX_PAGES)]
    salts += [slot_salt(topic, prefix) for topic in (TOPIC, OTHER) for prefix in entries(20)]
    assert len(set(salts)) == len(salts) and {len(salt) for salt in salts} == {32}


def test_merging_keeps_the_newest_and_stops_when_full():
    held = {b"a" * 8: 5, b"b" * 8: 1}
    assert merge(held, {b"a" * 8: 4, b"b" * 8: 2, b"c" * 8: 3}) == {b"a" * 8: 5, b"b" * 8: 2, b"c" * 8: 3}
    assert merge(held, {b"c" * 8: 1}, room=2) == held
    assert merge(held, {b"c" * 8: 1 << 64, b"d" * 8: -1}) == held
    assert held == {b"a" * 8: 5, b"b" * 8: 1}, "what is merged into is not changed"
