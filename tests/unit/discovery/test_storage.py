"""The storing node: verified, newest, expiring, capped, and fair to those who store little."""

import tracemalloc

import pytest
from discovery_simulation import UNIX_START, fake_envelope, fake_inspect

from dhtvpn.discovery.floors import FLOOR_S
from dhtvpn.discovery.storage import ENTRY_OVERHEAD, PREFIX_SHARE, Outcome, Storage
from dhtvpn.discovery.wire import pack_have
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint

KEY, NOW = bytes(20), float(UNIX_START)
SOURCE = Endpoint("198.18.0.1", 4690)
COST = 600 + ENTRY_OVERHEAD


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


def test_when_full_the_soonest_to_expire_makes_room(drops):
    storage = make(drops, max_bytes=3 * COST, max_per_prefix=3 * COST)
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
    assert storage.size_bytes == COST


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


# Fair shares


def flood(storage, hosts, per_host, *, start=0, expires_in=7000, now=NOW, size=600):
    """Valid envelopes under topics of the flooder's own, as many as it likes; returns how many got in."""
    taken = 0
    for number in range(per_host):
        for position, host in enumerate(hosts):
            own = (0xF << 150 | start + number * len(hosts) + position).to_bytes(20, "big")
            source = Endpoint(host, 1 + number % 60_000)
            taken += storage.put(own, fake_envelope(own, 1, 1, expires_in, size), source, now) is Outcome.NEW
    return taken


def honest_networks(count, members):
    """(source, topic, writer) of networks whose members sit in a prefix each."""
    return [
        (Endpoint(f"203.{network}.{member}.9", 4690), key(1000 + network), member)
        for network in range(count)
        for member in range(members)
    ]


def store_all(storage, networks, *, sequence=1, expires_in=3600, now=NOW):
    return [
        storage.put(topic, fake_envelope(topic, writer, sequence, expires_in), source, now)
        for source, topic, writer in networks
    ]


FLOODERS = {
    "256 addresses of an IPv4 /24": [f"198.18.0.{n}" for n in range(256)],
    "256 /64s of an IPv6 /48": [f"2001:db8:0:{n:x}::1" for n in range(256)],
    "16 /24s": [f"198.18.{n // 16}.{n % 16}" for n in range(256)],
}


@pytest.mark.parametrize("hosts", FLOODERS.values(), ids=FLOODERS)
@pytest.mark.parametrize(
    "max_per_prefix", [None, 400 * COST], ids=["capped per prefix", "filled to the last"]
)
def test_a_flooder_evicts_no_honest_slot_and_keeps_none_out(drops, hosts, max_per_prefix):
    """Filled to the total cap by the flooder; honest networks, whose records expire sooner, still get in, and
    stay while the flood goes on and while they publish again."""
    storage = make(drops, max_bytes=400 * COST, max_per_prefix=max_per_prefix)
    flood(storage, hosts, 8)
    networks = honest_networks(5, 12)
    assert storage.size_bytes <= 400 * COST
    assert set(store_all(storage, networks)) == {Outcome.NEW}
    for turn in range(2, 6):
        flood(storage, hosts, 4, start=turn * 100_000)
        held = {(topic, s.slot, s.sequence) for _, topic, _ in networks for s in storage.get(topic, NOW)}
        assert len(held) == len(networks), "every honest slot is there"
        assert set(store_all(storage, networks, sequence=turn, expires_in=3600 + turn)) == {Outcome.NEW}
    assert storage.size_bytes <= 400 * COST


def test_one_prefix_never_has_more_than_its_part_of_an_empty_store(drops):
    storage = make(drops, max_bytes=80 * COST)
    flood(storage, FLOODERS["256 addresses of an IPv4 /24"], 2)
    assert storage.size_bytes == 80 * COST // PREFIX_SHARE


def test_a_neighbour_of_the_flooder_keeps_its_slots_too(drops):
    """Inside a prefix the address that holds the most gives way."""
    storage = make(drops, max_bytes=800 * COST, max_per_prefix=100 * COST)
    flood(storage, [f"198.18.0.{n}" for n in range(10)], 20)
    neighbour = Endpoint("198.18.0.200", 1)
    for writer in range(5):
        assert storage.put(KEY, fake_envelope(KEY, writer, 1), neighbour, NOW) is Outcome.NEW
    flood(storage, [f"198.18.0.{n}" for n in range(10)], 20, start=9000)
    assert len(storage.get(KEY, NOW)) == 5
    assert storage.size_bytes == 100 * COST


def test_shares_are_equal_when_everybody_wants_more(drops):
    storage = make(drops, max_bytes=120 * COST, max_per_prefix=120 * COST)
    for number in range(100):
        flood(storage, [f"203.0.{prefix}.1" for prefix in range(6)], 1, start=6 * number)
    held = [storage._shares.of_prefix(bytes([203, 0, prefix])) for prefix in range(6)]
    assert max(held) - min(held) <= COST
    assert sum(held) == 120 * COST


def test_our_own_records_get_in_and_are_never_evicted(drops):
    storage = make(drops, max_bytes=50 * COST)
    flood(storage, FLOODERS["16 /24s"], 1)
    assert storage.put(KEY, fake_envelope(KEY, 1, 1, 30), None, NOW) is Outcome.NEW
    flood(storage, FLOODERS["16 /24s"], 2, start=5000)
    assert len(storage.get(KEY, NOW)) == 1


def test_who_copies_an_envelope_cannot_have_it_evicted_by_his_own_flood(drops):
    """A hostile node stores a member's envelope first and is charged for it. When the member stores it,
    the charge moves to the prefix that holds less."""
    storage = make(drops, max_bytes=60 * COST, max_per_prefix=60 * COST)
    member, copier = Endpoint("203.0.0.9", 1), "198.18.0.1"
    flood(storage, [copier], 10)
    envelope = fake_envelope(KEY, 1, 1)
    assert storage.put(KEY, envelope, Endpoint(copier, 7), NOW) is Outcome.NEW
    assert storage.put(KEY, envelope, member, NOW) is Outcome.REFRESHED
    assert storage.put(KEY, envelope, Endpoint(copier, 7), NOW) is Outcome.REFRESHED
    flood(storage, [f"198.18.0.{n}" for n in range(100)], 3, start=5000)
    assert [s.envelope for s in storage.get(KEY, NOW)] == [envelope]
    assert storage.size_bytes == 60 * COST


def test_envelopes_cost_what_they_are_counted_as():
    """In the worst case: topic, address and prefix of its own."""
    storage = make(Drops(), max_bytes=1 << 30)
    envelopes = [
        (key(n), fake_envelope(key(n), n, 1), Endpoint(f"203.{n >> 8}.{n & 255}.1", 1)) for n in range(3000)
    ]
    spare = sum(33 + len(envelope) + 53 for _, envelope, _ in envelopes)
    tracemalloc.start()
    for topic, envelope, source in envelopes:
        storage.put(topic, envelope, source, NOW)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.5 * storage.size_bytes < used + spare < storage.size_bytes


# Floors


def test_an_expired_envelope_leaves_a_floor_until_no_older_one_can_be_valid(drops):
    """A leaving record expires within a minute; the one before it is valid for two hours."""
    storage = make(drops)
    older = fake_envelope(KEY, 1, 4, 7000)
    storage.put(KEY, older, SOURCE, NOW)
    storage.put(KEY, fake_envelope(KEY, 1, 5, 60), SOURCE, NOW + 1)
    assert storage.expire(NOW + 61) == 1
    assert (len(storage), storage.floors) == (0, 1)
    assert storage.put(KEY, older, SOURCE, NOW + 62) is Outcome.STALE
    assert storage.put(KEY, fake_envelope(KEY, 1, 6, 7000), SOURCE, NOW + 63) is Outcome.NEW
    storage.expire(NOW + 1 + FLOOR_S)
    assert (len(storage), storage.floors) == (0, 1), "of the one that expired at last"
    storage.expire(NOW + 64 + FLOOR_S)
    assert storage.floors == 0


def test_an_evicted_envelope_leaves_a_floor_and_may_come_back(drops):
    storage = make(drops, max_bytes=3 * COST, max_per_prefix=3 * COST)
    evicted = fake_envelope(key(0), 1, 5, 100)
    storage.put(key(0), evicted, SOURCE, NOW)
    flood(storage, [SOURCE.host], 3)
    assert storage.get(key(0), NOW) == []
    assert storage.put(key(0), fake_envelope(key(0), 1, 4, 7100), SOURCE, NOW) is Outcome.STALE
    assert storage.put(key(0), evicted, Endpoint("203.0.0.1", 1), NOW) is Outcome.NEW


def test_floors_survive_a_restart(drops):
    storage = make(drops)
    storage.put(KEY, fake_envelope(KEY, 1, 5), SOURCE, NOW)
    storage.put(KEY, fake_envelope(KEY, 2, 5, 30), SOURCE, NOW)
    storage.expire(NOW + 30)
    content = storage.pack_floors()
    again = make(drops)
    assert again.unpack_floors(content, NOW + 60) == 2
    for writer in (1, 2):
        assert again.put(KEY, fake_envelope(KEY, writer, 4), SOURCE, NOW + 60) is Outcome.STALE
        assert again.put(KEY, fake_envelope(KEY, writer, 5), SOURCE, NOW + 60) is Outcome.NEW
    assert make(drops).unpack_floors(content, NOW + FLOOR_S) == 0
    assert KEY not in content
