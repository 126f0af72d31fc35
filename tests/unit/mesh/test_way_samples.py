"""When a way through relays is left for another."""

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.mesh.way_samples import ENOUGH, WaySamples, is_better

ANSWERS = st.lists(st.one_of(st.none(), st.floats(0.1, 1000)), max_size=20)


def way(*round_trips_ms: float | None, penalty_ms: float = 0.0) -> WaySamples:
    samples = WaySamples(penalty_ms)
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


def test_loss_counts_on_a_fast_way_too() -> None:
    assert is_better(way(1, 1, 1, 1), way(1, None, 1, 1))
    assert not is_better(way(1, None, 1, 1), way(1, None, 1, 1))


def test_a_penalty_counts_as_delay() -> None:
    volunteer, member = way(5, 5, 5, penalty_ms=20), way(6, 6, 6)
    assert is_better(member, volunteer) and not is_better(volunteer, member)
    assert is_better(way(50, 50, 50, penalty_ms=20), way(120, 120, 120))


def test_who_has_a_penalty_is_left_for_an_equal_and_not_the_other_way_round() -> None:
    volunteer, member = way(90, 90, 90, penalty_ms=20), way(100, 100, 100)
    assert is_better(member, volunteer) and not is_better(volunteer, member)
    assert not is_better(way(120, 120, 120), volunteer)


def test_what_is_past_is_forgotten() -> None:
    assert is_better(way(20, 20, 20), way(*[20] * 50, *[400] * 8))


@given(ANSWERS, ANSWERS, st.sampled_from([0.0, 20.0]), st.sampled_from([0.0, 20.0]))
def test_two_ways_are_never_better_than_each_other(
    one: list[float | None], other: list[float | None], penalty_ms: float, other_penalty_ms: float
) -> None:
    first, second = way(*one, penalty_ms=penalty_ms), way(*other, penalty_ms=other_penalty_ms)
    assert not (is_better(first, second) and is_better(second, first))
