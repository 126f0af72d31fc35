"""How much of a flood is read, by an injected clock."""

import pytest

from dhtvpn.nat.reading import (
    BURST_S,
    FAIR_PER_WINDOW,
    LEAST_PAUSE_S,
    MAX_COUNTED,
    MAX_THINNED,
    SHARE,
    WINDOW_S,
    ReadBudget,
    Thinning,
)
from dhtvpn.nat.socket_filter import PASS_BITS, source_key

FLOODER, PEER = "192.0.2.7", "192.0.2.8"


def test_a_burst_is_read_at_once() -> None:
    budget = ReadBudget(0.0)
    assert [budget.spend(0.01, 0.001 * turn) for turn in range(10)] == [0.0] * 10


def test_a_flood_gets_its_share_of_the_time() -> None:
    budget, now, used = ReadBudget(0.0), 0.0, 0.0
    while now < 60.0:
        used += 0.001
        now += 0.001
        now += budget.spend(0.001, now)
    assert used == pytest.approx(60.0 * SHARE + BURST_S, rel=0.1)
    assert not budget.exhausted or budget.spend(0.0, now + 1.0) == LEAST_PAUSE_S
    assert budget.spend(0.0, now + 10.0) == 0.0


def test_half_used_means_fewer_wake_ups_and_all_used_a_flood() -> None:
    budget = ReadBudget(0.0)
    assert budget.spend(0.6 * BURST_S, 0.0) == LEAST_PAUSE_S
    assert not budget.exhausted
    assert budget.spend(0.5 * BURST_S, 0.0) == pytest.approx(0.1 * BURST_S / SHARE)
    assert budget.exhausted


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    budget = ReadBudget(5.0)
    budget.spend(BURST_S, 1.0)
    assert budget.exhausted


def counted(thinning: Thinning, number: int, host: str = FLOODER) -> None:
    for _ in range(number):
        thinning.count(host)


def test_without_a_flood_nobody_is_thinned() -> None:
    thinning = Thinning(0.0)
    counted(thinning, 100 * FAIR_PER_WINDOW)
    assert not thinning.review(WINDOW_S)
    assert not thinning.active


def test_who_floods_is_thinned_to_a_fair_number_and_let_go_afterwards() -> None:
    thinning, now, rate = Thinning(0.0), 0.0, 100 * FAIR_PER_WINDOW
    for _ in range(20):
        now += WINDOW_S
        passed = rate >> thinning.sources.get(source_key(FLOODER), 0)
        counted(thinning, passed)
        counted(thinning, FAIR_PER_WINDOW // 2, PEER)
        if passed > 10 * FAIR_PER_WINDOW:
            thinning.flooded(now - WINDOW_S)
        thinning.review(now)
    assert set(thinning.sources) == {source_key(FLOODER)}
    assert FAIR_PER_WINDOW / 2 <= passed <= 2 * FAIR_PER_WINDOW
    for _ in range(PASS_BITS):
        now += WINDOW_S
        thinning.review(now)
    assert thinning.sources == {}
    assert not thinning.active


def test_a_64_is_one_source() -> None:
    thinning = Thinning(0.0)
    thinning.flooded(0.0)
    for host in range(4 * FAIR_PER_WINDOW):
        thinning.count(f"2001:db8:1:2::{host:x}")
    assert thinning.review(WINDOW_S)
    assert set(thinning.sources) == {source_key("2001:db8:1:2::")}


def test_forged_sources_make_nothing_grow() -> None:
    thinning = Thinning(0.0)
    thinning.flooded(0.0)
    for number in range(2 * MAX_COUNTED):
        thinning.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    for number in range(2 * MAX_THINNED):
        counted(thinning, 2 * FAIR_PER_WINDOW, f"10.0.0.{number}")
    assert len(thinning._counts) <= MAX_COUNTED
    thinning.review(WINDOW_S)
    assert len(thinning.sources) == MAX_THINNED
    assert len(thinning._counts) == 0
