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
