"""Floors: no slot is rolled back, none forgotten for a flooder's, and the disk says little."""

import tracemalloc

import pytest

from dhtvpn.discovery.floors import FLOOR_OVERHEAD, FLOOR_S, Floor, Floors, KeptFloors
from dhtvpn.discovery.shares import holder_of
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DamagedStateError

KEY, SLOT, NOW = bytes(20), bytes(16), 1_800_000_000
HOLDER = holder_of(Endpoint("203.0.0.1", 1))


def slot(number):
    return number.to_bytes(16, "big")


def test_the_higher_sequence_and_the_later_time_stand():
    floors = Floors()
    floors.raise_to(KEY, SLOT, Floor(5, NOW + 10, HOLDER))
    floors.raise_to(KEY, SLOT, Floor(4, NOW + 50, HOLDER))
    assert floors.sequence(KEY, SLOT) == 5
    floors.raise_to(KEY, SLOT, Floor(6, NOW + 5, HOLDER))
    floors.expire(NOW + 9)
    assert floors.sequence(KEY, SLOT) == 6
    floors.expire(NOW + 10)
    assert (floors.sequence(KEY, SLOT), len(floors)) == (0, 0)


def test_floors_of_a_flooder_make_room_for_others():
    floors = Floors(most=50)
    for number in range(200):
        flooder = holder_of(Endpoint(f"198.18.0.{number}", 1))
        floors.raise_to(KEY, slot(number), Floor(1, NOW + 10, flooder))
    for number in range(1000, 1010):
        floors.raise_to(KEY, slot(number), Floor(7, NOW + 10, HOLDER))
    for number in range(200, 400):
        flooder = holder_of(Endpoint(f"198.18.0.{number % 256}", 1))
        floors.raise_to(KEY, slot(number), Floor(1, NOW + 10, flooder))
    assert all(floors.sequence(KEY, slot(number)) == 7 for number in range(1000, 1010))
    assert len(floors) == 50


def test_raising_often_does_not_grow_the_queue():
    floors = Floors()
    for sequence in range(5000):
        floors.raise_to(KEY, SLOT, Floor(sequence + 1, NOW + sequence, HOLDER))
    assert len(floors) == 1
    assert len(floors._by_until) < 200


def test_the_disk_holds_hashes_and_only_what_counts(tmp_path):
    floors = Floors()
    floors.raise_to(KEY + b"", slot(77), Floor(5, NOW + 100, HOLDER))
    content = floors.pack([(KEY, slot(78), Floor(6, NOW + FLOOR_S, HOLDER))])
    assert slot(77) not in content
    assert slot(78) not in content
    kept = KeptFloors(tmp_path / "floors")
    assert kept.load() is None
    kept.save(content)
    assert (tmp_path / "floors").stat().st_mode & 0o777 == 0o600
    again = Floors()
    assert again.unpack(kept.load(), NOW + 100) == 1
    assert again.sequence(KEY, slot(78)) == 6
    assert Floors().unpack(content, NOW - 5) == 1, "further ahead than any floor can be"


def after_a_restart(holders, each, most):
    """Floors of an earlier run, of as many prefixes, now read from disk; and their slots."""
    before, number = Floors(most), 0
    for prefix in range(holders):
        holder = holder_of(Endpoint(f"203.0.{prefix}.1", 1))
        for _ in range(each):
            before.raise_to(KEY, slot(number), Floor(5, NOW + 100 + number, holder))
            number += 1
    assert len(before) == holders * each
    floors = Floors(most)
    assert floors.unpack(before.pack(), NOW) == holders * each
    return floors, [slot(number) for number in range(holders * each)]


def test_after_a_restart_a_flooder_does_not_push_out_what_came_from_disk():
    """One /24, all of its addresses: it gets no more than a bucket has."""
    floors, kept = after_a_restart(holders=80, each=10, most=800)
    for number in range(10_000, 15_000):
        flooder = holder_of(Endpoint(f"198.18.0.{number % 256}", 1))
        floors.raise_to(KEY, slot(number), Floor(1, NOW + FLOOR_S, flooder))
    left = sum(floors.sequence(KEY, name) == 5 for name in kept)
    assert len(floors) == 800
    assert left >= 0.98 * len(kept), left


def test_after_a_restart_there_is_room_for_the_floors_of_whoever_comes():
    """The file may have been filled by a flooder: what is from disk makes room, the soonest to end first."""
    floors, kept = after_a_restart(holders=1, each=4096, most=4096)
    for prefix in range(50):
        holder = holder_of(Endpoint(f"192.0.{prefix}.1", 1))
        for number in range(8):
            floors.raise_to(KEY, slot(100_000 + 8 * prefix + number), Floor(7, NOW + FLOOR_S, holder))
    assert all(floors.sequence(KEY, slot(100_000 + number)) == 7 for number in range(400))
    assert len(floors) == 4096
    gone = [number for number, name in enumerate(kept) if floors.sequence(KEY, name) == 0]
    assert len(gone) == 400
    assert sum(gone) / len(gone) < 1024, "those that would have ended first"


def test_nobody_chooses_the_bucket_of_his_floor():
    """The same slot falls into another bucket when anything else in the file differs."""
    buckets = set()
    for other in range(20):
        floors = Floors()
        content = floors.pack(
            [(KEY, SLOT, Floor(1, NOW + 5, HOLDER)), (KEY, slot(9), Floor(other + 2, NOW + 5, HOLDER))]
        )
        floors.unpack(content, NOW)
        buckets.add(next(f.holder for f in floors._floors.values() if f.sequence == 1))
    assert len(buckets) > 10


@pytest.mark.parametrize("content", [b"", b"dhtvpn", b"dhtvpn floors 1\n" + bytes(31), bytes(48)])
def test_a_damaged_file_is_refused(content):
    with pytest.raises(DamagedStateError):
        Floors().unpack(content, NOW)


def test_floors_cost_what_they_are_counted_as():
    floors = Floors(3000)
    tracemalloc.start()
    for number in range(3000):
        holder = holder_of(Endpoint(f"203.{number >> 8}.{number & 255}.1", 1))
        floors.raise_to(KEY, slot(number), Floor(1 << 60, NOW + number, holder))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.5 * FLOOR_OVERHEAD < used / len(floors) < FLOOR_OVERHEAD
