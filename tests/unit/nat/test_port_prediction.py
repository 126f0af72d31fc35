"""Order among ports, and what lies between two of them."""

import random

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.port_prediction import (
    EARLIER,
    LARGEST_STEP,
    MAX_GUESSES,
    between,
    in_order,
    right_before,
)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([30000, 30001, 30002], True),
        ([30000, 30002, 30004, 30006], True),
        ([30000, 30003, 30004], True),  # others in between
        ([30000, 30001, 30001 + LARGEST_STEP + 1], False),
        ([30002, 30001, 30000], False),
        ([65535, 1024, 1025], False),
        ([30000, 30001], None),
        ([30000, 30000, 30000], None),
        ([], None),
    ],
)
def test_order(ports: list[int], expected: bool | None) -> None:
    assert in_order(ports) is expected


def test_ports_by_chance_are_not_in_order() -> None:
    chance = random.Random(1)
    assert not any(in_order([chance.randint(1024, 65535) for _ in range(3)]) for _ in range(100_000))


def at(port: int, host: str = "198.18.2.2") -> Endpoint:
    return Endpoint(host, port)


def test_between_are_those_that_neither_look_has_got() -> None:
    assert list(between(at(30000), at(30003))) == [30001, 30002]
    assert list(between(at(30000), at(30001))) == []
    assert len(between(at(30000), at(30001 + MAX_GUESSES))) == MAX_GUESSES
    assert not between(at(30000), at(30002 + MAX_GUESSES))
    assert not between(at(31999), at(30001)), "the NAT has begun anew"
    assert not between(at(30000), at(30003, "198.18.2.3"))


def test_right_before_comes_the_nearest_first_and_no_port_that_there_is_not() -> None:
    assert list(right_before(at(30000)))[:2] == [29999, 29998]
    assert len(right_before(at(30000))) == EARLIER
    assert list(right_before(at(3))) == [2, 1]
