"""The search finds a tunnel's rate in few trials and is not fooled by one bad moment."""

from collections.abc import Callable

import pytest

from dhtvpn.lab.bench.rate_search import SLOWEST, RateSearch, Trial


def search(
    capacity: float, guess: float, max_trials: int = 20, bad: Callable[[int], bool] = lambda _: False
) -> tuple[float | None, list[float]]:
    """Run against a tunnel that carries ``capacity`` packets/s and loses the rest; the rates offered."""
    searching = RateSearch(guess, max_trials)
    offered: list[float] = []
    while (rate := searching.next_rate()) is not None:
        offered.append(rate)
        arrived = 0.5 * rate if bad(len(offered)) else min(rate, capacity)
        searching.report(Trial(sent=round(rate), arrived=round(arrived), seconds=1.0))
        assert len(offered) < 100
    return searching.best, offered


@pytest.mark.parametrize("capacity", [900.0, 43_000.0, 100_000.0, 390_000.0])
@pytest.mark.parametrize("guess", [100_000.0, 5_000.0])
def test_it_finds_the_rate_from_any_guess(capacity: float, guess: float) -> None:
    best, _ = search(capacity, guess, max_trials=60)
    assert best == pytest.approx(capacity, rel=0.07)


def test_a_good_guess_needs_few_trials() -> None:
    _, offered = search(100_000.0, guess=95_000.0)
    assert len(offered) <= 12


def test_one_bad_trial_does_not_lower_the_result() -> None:
    best, _ = search(100_000.0, guess=90_000.0, bad=lambda number: number == 1)
    assert best == pytest.approx(100_000.0, rel=0.07)


def test_trials_are_limited_once_one_has_passed() -> None:
    best, offered = search(100_000.0, guess=60_000.0, max_trials=2)
    assert len(offered) == 2
    assert best is not None
    best, offered = search(2_000.0, guess=100_000.0, max_trials=2)
    assert best is not None
    assert len(offered) > 2


def test_it_gives_up_below_the_slowest_rate() -> None:
    best, offered = search(capacity=10.0, guess=100_000.0)
    assert best is None
    assert min(offered) >= SLOWEST


def test_a_sender_at_its_end_ends_the_search_upwards() -> None:
    searching = RateSearch(100_000.0, 50)
    while (rate := searching.next_rate()) is not None:
        sent = min(rate, 150_000.0)
        searching.report(Trial(sent=round(sent), arrived=round(sent), seconds=1.0))
    assert searching.best == pytest.approx(150_000.0, rel=0.07)


def test_a_sender_that_was_held_up_once_is_asked_again() -> None:
    searching, trials = RateSearch(90_000.0, 50), 0
    while (rate := searching.next_rate()) is not None:
        trials += 1
        sent = 0.6 * rate if trials == 1 else rate
        searching.report(Trial(sent=round(sent), arrived=round(min(sent, 100_000.0)), seconds=1.0))
    assert searching.best == pytest.approx(100_000.0, rel=0.07)


def test_a_trial_in_numbers() -> None:
    trial = Trial(sent=1000, arrived=995, seconds=0.5)
    assert trial.loss == pytest.approx(0.005)
    assert trial.arrived_per_s == 1990
    assert trial.sent_per_s == 2000
    assert Trial(sent=100, arrived=101, seconds=1.0).loss == 0.0
    assert Trial(sent=0, arrived=0, seconds=0.0).loss == 1.0
    assert Trial(sent=0, arrived=0, seconds=0.0).arrived_per_s == 0.0
