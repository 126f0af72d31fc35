"""The emulated link: what is lost, what waits, what overtakes."""

import itertools
import random

import pytest

from dhtvpn.errors import UsageError
from dhtvpn.lab import link_schedule
from dhtvpn.lab.link_schedule import Conditions, OneWay

QUIET = Conditions(delay_s=0.004, jitter_s=0.0, loss=0.0, reordering=0.0)
NEIGHBOUR = bytes(12) + b"\x86\xdd" + bytes(6) + b"\x3a" + bytes(33) + b"\x88" + bytes(23)
"""An advertisement to one machine."""


def numbered(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(count)]


def departures(way: OneWay, frames: list[bytes], gap_s: float = 0.0001) -> list[tuple[float, bytes]]:
    """Offer a frame every ``gap_s``, then let all leave; when each left, at the moment it was due."""
    left: list[tuple[float, bytes]] = []

    def until(now: float) -> None:
        while (due := way.next_due()) is not None and due <= now:
            left.extend((due, frame) for frame in way.take(due))

    for number, frame in enumerate(frames):
        until(number * gap_s)
        way.offer(frame, number * gap_s)
    until(float("inf"))
    return left


def test_a_frame_leaves_after_the_delay_and_not_before() -> None:
    way = OneWay(QUIET, seed=1)
    assert way.next_due() is None
    way.offer(b"frame", now=10.0)
    assert way.next_due() == pytest.approx(10.004)
    assert way.take(10.0039) == []
    assert way.take(10.0041) == [b"frame"]
    assert way.next_due() is None
    assert (way.carried, way.carried_bytes) == (1, 5)


def test_jitter_delays_by_its_range_and_keeps_the_order() -> None:
    conditions = Conditions(delay_s=0.004, jitter_s=0.004, loss=0.0, reordering=0.0)
    frames = numbered(2000)
    left = departures(OneWay(conditions, seed=3), frames, gap_s=0.02)
    assert [frame for _, frame in left] == frames
    delays = [due - number * 0.02 for number, (due, _) in enumerate(left)]
    assert min(delays) >= 0.0
    assert max(delays) <= 0.008 + 1e-9
    assert max(delays) - min(delays) > 0.007
    assert sum(delays) / len(delays) == pytest.approx(0.004, abs=0.0002)


def test_loss_and_reordering_come_in_their_shares() -> None:
    conditions = Conditions(delay_s=0.004, jitter_s=0.0, loss=0.005, reordering=0.01)
    frames = numbered(40_000)
    way = OneWay(conditions, seed=5)
    left = [frame for _, frame in departures(way, frames)]
    assert way.lost / len(frames) == pytest.approx(0.005, rel=0.2)
    assert way.reordered / len(frames) == pytest.approx(0.01, rel=0.2)
    assert len(left) == len(frames) - way.lost == way.carried
    overtakers = sum(1 for before, after in itertools.pairwise(left) if after < before)
    assert overtakers == pytest.approx(way.reordered, rel=0.1)


def test_an_overtaking_frame_takes_half_the_delay() -> None:
    way = OneWay(Conditions(delay_s=0.004, jitter_s=0.0, loss=0.0, reordering=1.0), seed=1)
    way.offer(b"fast", now=1.0)
    assert way.next_due() == pytest.approx(1.002)


def test_the_same_seed_gives_the_same_link_and_another_one_does_not() -> None:
    frames = numbered(500)
    conditions = Conditions(delay_s=0.004, jitter_s=0.004, loss=0.005, reordering=0.01)
    first, again, other = (departures(OneWay(conditions, seed), frames) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_schedule, "QUEUE_MAX", 10)
    way = OneWay(QUIET, seed=1)
    for frame in numbered(25):
        way.offer(frame, now=0.0)
    assert way.overflowed == 15
    assert way.take(1.0) == numbered(10)


def test_frames_leave_by_when_they_are_due_however_late_they_are_taken() -> None:
    conditions = Conditions(delay_s=0.01, jitter_s=0.01, loss=0.1, reordering=0.2)
    frames = numbered(1000)
    prompt = [frame for _, frame in departures(OneWay(conditions, seed=2), frames)]
    late, chance = OneWay(conditions, seed=2), random.Random(1)
    taken: list[bytes] = []
    for number, frame in enumerate(frames):
        if chance.random() < 0.01:
            taken += late.take(number * 0.0001)
        late.offer(frame, number * 0.0001)
    assert taken + late.take(1.0) == prompt


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_s": -0.001, "jitter_s": 0.0},
        {"delay_s": 0.001, "jitter_s": 0.002},
        {"loss": 1.1},
        {"reordering": -0.1},
    ],
)
def test_impossible_conditions_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Conditions(**{"delay_s": 0.004, "jitter_s": 0.004, **wrong})


@pytest.mark.parametrize(
    "upkeep",
    [b"\xff" * 6 + bytes(6) + b"\x08\x00", b"\x33\x33" + bytes(12), bytes(12) + b"\x08\x06", NEIGHBOUR],
    ids=["broadcast", "group", "ARP", "neighbour discovery"],
)
def test_what_a_kernel_sends_on_its_own_changes_nothing_for_others(upkeep: bytes) -> None:
    conditions = Conditions(delay_s=0.004, jitter_s=0.004, loss=0.2, reordering=0.05)
    frames = [bytes(14) + number.to_bytes(4, "big") for number in range(500)]
    with_upkeep = [frame for pair in zip(frames, [upkeep] * 500, strict=True) for frame in pair]
    alone = {frame for _, frame in departures(OneWay(conditions, seed=3), frames)}
    beside = [frame for _, frame in departures(OneWay(conditions, seed=3), with_upkeep)]
    assert {frame for frame in beside if frame != upkeep} == alone
    assert 300 < beside.count(upkeep) < 500, "it has chances too"
