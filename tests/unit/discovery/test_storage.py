"""The storing node: verified, newest, expiring, capped."""

import pytest
from discovery_simulation import UNIX_START, fake_envelope, fake_inspect

from dhtvpn.discovery.storage import ENTRY_OVERHEAD, Outcome, Storage
from dhtvpn.discovery.wire import pack_have
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint

KEY, NOW = bytes(20), float(UNIX_START)
SOURCE = Endpoint("198.18.0.1", 4690)


def key(number):
    return number.to_bytes(20, "big")


@pytest.fixture
def drops():
    return Drops()


def make(drops, **caps):
    return Storage(fake_inspect, drops, **caps)


def test_outcomes(drops):
    storage = make(drops)
    assert storage.put(KEY, fake_envelope(KEY, 1, 5), SOURCE, NOW) is Outcome.NEW
    assert storage.put(KEY, fake_envelope(KEY, 1, 5), SOURCE, NOW) is Outcome.REFRESHED
    assert storage.put(KEY, fake_envelope(KEY, 1, 5, 99), SOURCE, NOW) is Outcome.STALE
    assert storage.put(KEY, fake_envelope(KEY, 1, 4), SOURCE, NOW) is Outcome.STALE
    assert storage.put(KEY, fake_envelope(KEY, 1, 6), SOURCE, NOW) is Outcome.NEW
    assert storage.put(key(1), fake_envelope(KEY, 1, 7), SOURCE, NOW) is Outcome.REFUSED
    assert storage.put(KEY, b"x" * 901, SOURCE, NOW) is Outcome.REFUSED
    assert [s.sequence for s in storage.get(KEY, NOW)] == [6]
    assert drops.as_dict() == {"dht.stale_sequence": 2, "record.size": 1, "record.topic": 1}


def test_expired_is_neither_handed_out_nor_kept(drops):
    storage = make(drops)
    storage.put(KEY, fake_envelope(KEY, 1, 1, expires_in=10), SOURCE, NOW)
    storage.put(KEY, fake_envelope(KEY, 2, 1, expires_in=20), SOURCE, NOW)
    assert len(storage.get(KEY, NOW + 10)) == 1
    assert storage.expire(NOW + 20) == 2
    assert (len(storage), storage.size_bytes, storage.topics) == (0, 0, 0)


def test_a_renewed_envelope_outlives_the_expiry_of_the_old(drops):
    storage = make(drops)
    storage.put(KEY, fake_envelope(KEY, 1, 1, expires_in=10), SOURCE, NOW)
    storage.put(KEY, fake_envelope(KEY, 1, 2, expires_in=30), SOURCE, NOW)
    assert storage.expire(NOW + 15) == 0
    assert len(storage) == 1


def test_slots_of_a_topic_are_capped(drops):
    storage = make(drops, max_slots=3)
    outcomes = [storage.put(KEY, fake_envelope(KEY, writer, 1), SOURCE, NOW) for writer in range(4)]
    assert outcomes == [Outcome.NEW] * 3 + [Outcome.FULL]
    assert storage.put(KEY, fake_envelope(KEY, 0, 2), SOURCE, NOW) is Outcome.NEW


def test_envelopes_of_an_address_are_capped_and_freed(drops):
    storage = make(drops, max_per_address=2)
    for writer in range(2):
        storage.put(KEY, fake_envelope(KEY, writer, 1, expires_in=10), SOURCE, NOW)
    assert storage.put(KEY, fake_envelope(KEY, 2, 1), SOURCE, NOW) is Outcome.FULL
    assert storage.put(KEY, fake_envelope(KEY, 2, 1), SOURCE._replace(port=9), NOW) is Outcome.FULL
    assert storage.put(KEY, fake_envelope(KEY, 2, 1), Endpoint("198.18.0.2", 1), NOW) is Outcome.NEW
    assert storage.put(KEY, fake_envelope(KEY, 3, 1), SOURCE, NOW + 11) is Outcome.NEW
    six = [Endpoint(f"2001:db8::{n}", 1) for n in range(1, 4)]
    outcomes = [storage.put(key(9), fake_envelope(key(9), n, 1), six[n], NOW) for n in range(3)]
    assert outcomes[-1] is Outcome.FULL, "one /64 is one address"


@pytest.mark.parametrize("caps", [{"max_bytes": 3 * (600 + ENTRY_OVERHEAD)}, {"max_topics": 3}])
def test_when_full_the_soonest_to_expire_makes_room(drops, caps):
    storage = make(drops, **caps)
    for number, expires_in in enumerate((300, 100, 200)):
        storage.put(key(number), fake_envelope(key(number), 1, 1, expires_in), SOURCE, NOW)
    assert storage.put(key(7), fake_envelope(key(7), 1, 1, 50), SOURCE, NOW) is Outcome.FULL
    assert storage.put(key(8), fake_envelope(key(8), 1, 1, 400), SOURCE, NOW) is Outcome.NEW
    assert [len(storage.get(key(n), NOW)) for n in (0, 1, 2, 7, 8)] == [1, 0, 1, 0, 1]
    assert drops.as_dict()["dht.evicted"] == 1


def test_replacing_often_does_not_grow_the_expiry_queue(drops):
    storage = make(drops)
    for sequence in range(5000):
        storage.put(KEY, fake_envelope(KEY, 1, sequence + 1), SOURCE, NOW)
    assert len(storage._by_expiry) < 200
    assert storage.size_bytes == 600 + ENTRY_OVERHEAD


def test_a_reader_is_told_only_what_it_lacks(drops):
    storage = make(drops)
    for writer in range(4):
        storage.put(KEY, fake_envelope(KEY, writer, 10), SOURCE, NOW)
    slots = [s.slot for s in storage.get(KEY, NOW)]
    have = pack_have([(slots[0], 10), (slots[1], 9), (slots[2], 11)])
    assert [s.slot for s in storage.missing(KEY, have, NOW)] == [slots[1], slots[3]]
    assert [s.slot for s in storage.missing(KEY, b"", NOW, slots[2])] == [
        slots[2],
        slots[3],
        slots[0],
        slots[1],
    ]
