"""The odds of guessing a port, on which docs/adr/0016-port-prediction.md rests."""

from collections.abc import Callable
from random import Random

import pytest

from dhtvpn.lab.simulation.port_guessing import (
    PORTS,
    Allocation,
    Nat,
    between_looks,
    many_sockets_both,
    many_sockets_one,
    predict_both,
    predict_one,
)

TRIES = 400


def rate(attempt: Callable[[], bool], tries: int = TRIES) -> float:
    return sum(attempt() for _ in range(tries)) / tries


@pytest.mark.parametrize(
    ("seen_ago_s", "others_per_s", "guesses", "least", "most"),
    [
        (0.2, 0, 1, 1.0, 1.0),
        (0.2, 1, 4, 0.98, 1.0),
        (0.2, 100, 4, 0.0, 0.02),
        (3, 1, 4, 0.55, 0.75),
        (3, 1, 16, 0.98, 1.0),
        (30, 1, 16, 0.0, 0.03),
        (30, 10, 64, 0.0, 0.01),
    ],
)
def test_ports_in_order(
    seen_ago_s: float, others_per_s: float, guesses: int, least: float, most: float
) -> None:
    chance = Random(1)
    measured = rate(
        lambda: predict_one(Nat(Allocation.SEQUENTIAL, others_per_s, chance), seen_ago_s, guesses)
    )
    assert least <= measured <= most


@pytest.mark.parametrize(
    ("others_per_s", "guesses", "least", "most"),
    [
        (0, 1, 1.0, 1.0),
        (10, 1, 0.95, 1.0),
        (1000, 1, 0.05, 0.25),
        (1000, 16, 1.0, 1.0),
        (10_000, 16, 0.1, 0.35),
    ],
)
def test_two_looks_a_millisecond_before_and_behind(
    others_per_s: float, guesses: int, least: float, most: float
) -> None:
    chance = Random(1)
    measured = rate(lambda: between_looks(Nat(Allocation.SEQUENTIAL, others_per_s, chance), 0.001, guesses))
    assert least <= measured <= most


@pytest.mark.parametrize(
    ("sockets", "guesses", "expected"), [(16, 48, 0.012), (64, 192, 0.173), (256, 256, 0.637)]
)
def test_many_sockets_are_as_good_as_the_birthday_formula(
    sockets: int, guesses: int, expected: float
) -> None:
    chance = Random(1)
    formula = 1 - (1 - sockets / PORTS) ** guesses
    assert formula == pytest.approx(expected, abs=0.01)
    assert rate(lambda: many_sockets_one(sockets, guesses, chance)) == pytest.approx(formula, abs=0.07)


def test_two_symmetric_sides() -> None:
    chance = Random(1)

    def nat(others_per_s: float) -> Nat:
        return Nat(Allocation.SEQUENTIAL, others_per_s, chance)

    assert rate(lambda: predict_both(nat(0), nat(0), 3, 4)) == 1.0
    assert rate(lambda: predict_both(nat(10), nat(10), 0.2, 16)) < 0.06
    assert rate(lambda: many_sockets_both(64, 16, chance), 50) < 0.05


def test_random_ports_cannot_be_predicted() -> None:
    chance = Random(1)
    assert rate(lambda: predict_one(Nat(Allocation.RANDOM, 0, chance), 0, 64)) < 0.02
