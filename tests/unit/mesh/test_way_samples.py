"""When a way through relays is left for another."""

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.mesh.way_samples import ENOUGH, WaySamples, is_better

ANSWERS = st.lists(st.one_of(st.none(), st.floats(0.1, 1000)), max_size=20)


def way(*round_trips_ms: float | None) -> WaySamples:
    samples = WaySamples()
    for each in round_trips_ms:
        samples.add(each)
    return samples


def test_delay_and_loss_are_left() -> None:
    good = way(20, 21, 22)
    assert is_better(good, way(500, 510, 505)) and not is_better(way(500, 510, 505), good)
    assert is_better(good, way(20, None, 20, None))
    assert is_better(good, way(None, None, None))


def test_little_is_no_reason_and_few_pings_are_none() -> None:
    assert not is_better(way(20, 20, 20), way(24, 24, 24))
    assert not is_better(way(3, 3, 3), way(7, 7, 7))
    assert not is_better(way(*[1] * (ENOUGH - 1)), way(900, 900, 900))
    assert not is_better(way(1, 1, 1), way(900))


def test_a_penalty_counts_as_delay() -> None:
    volunteer, member = WaySamples(20.0), way(6, 6, 6)
    for _ in range(3):
        volunteer.add(5.0)
    assert is_better(member, volunteer) and not is_better(volunteer, member)


def test_what_is_past_is_forgotten() -> None:
    assert is_better(way(20, 20, 20), way(*[20] * 50, *[400] * 8))


@given(ANSWERS, ANSWERS)
def test_two_ways_are_never_better_than_each_other(
    one: list[float | None], other: list[float | None]
) -> None:
    assert not (is_better(way(*one), way(*other)) and is_better(way(*other), way(*one)))
