"""The replay window against a plain set of counters."""

import random

import pytest

from dhtvpn.wireguard.constants import REJECT_AFTER_MESSAGES
from dhtvpn.wireguard.replay import WINDOW, ReplayWindow


def test_each_counter_passes_once() -> None:
    window = ReplayWindow()
    assert [window.accept(counter) for counter in (0, 1, 1, 5, 3, 3, 0, 9, 2)] == [
        True, True, False, True, True, False, False, True, True,
    ]  # fmt: skip


def test_the_window_is_8128_counters_wide() -> None:
    window = ReplayWindow()
    assert window.accept(WINDOW + 10)
    assert not window.accept(10)
    assert window.accept(11)
    assert not window.accept(11)
    assert WINDOW == 8128


@pytest.mark.parametrize("jump", [1, 63, 64, 65, 8127, 8128, 8129, 8191, 8192, 8193, 20_000, 1 << 40])
def test_a_jump_ahead_forgets_nothing_inside_the_window(jump: int) -> None:
    window = ReplayWindow()
    base = 100_000
    seen = {base - offset for offset in range(0, WINDOW, 7)}
    for counter in sorted(seen):
        assert window.accept(counter)
    assert window.accept(base + jump)
    oldest = base + jump - WINDOW + 1
    for counter in range(max(oldest, base - WINDOW + 1), base + jump):
        if counter - oldest > 20_000:
            break
        assert window.accept(counter) is (counter not in seen)


def test_no_counter_past_the_limit() -> None:
    window = ReplayWindow()
    assert not window.accept(REJECT_AFTER_MESSAGES)
    assert not window.accept((1 << 64) - 1)
    assert window.accept(REJECT_AFTER_MESSAGES - 1)
    assert not window.accept(0)


def test_what_it_would_refuse_is_told_without_taking_it() -> None:
    generator, window = random.Random(5), ReplayWindow()
    refused = 0
    for step in range(20_000):
        counter = max(0, 3 * step + generator.randrange(-2 * WINDOW, 200))
        told = window.refuses(counter)
        assert window.refuses(counter) is told is not window.accept(counter)
        refused += told
    assert 1_000 < refused < 19_000
    for counter in (REJECT_AFTER_MESSAGES - 1, REJECT_AFTER_MESSAGES, (1 << 64) - 1):
        assert window.refuses(counter) is not window.accept(counter)


def test_like_a_set_of_everything_seen() -> None:
    randomness = random.Random(6479)
    window, seen, greatest = ReplayWindow(), set(), 0
    for _ in range(60_000):
        step = randomness.choice([1, 1, 1, 2, 70, 300, -1, -64, -500, -8127, -8128, -9000])
        counter = max(0, greatest + step)
        fresh = counter not in seen and greatest - counter < WINDOW
        assert window.accept(counter) is fresh
        if fresh:
            seen.add(counter)
            greatest = max(greatest, counter)


def test_a_run_is_like_its_counters_one_by_one() -> None:
    """Where a run is refused nothing has happened, and the counters can still go one by one."""
    randomness = random.Random(8128)
    window, plain, greatest = ReplayWindow(), ReplayWindow(), 0
    taken = 0
    for _ in range(4000):
        first = max(
            0, greatest + randomness.choice([1, 1, 1, 2, 3, 64, 65, 500, 8127, 8192, 9000, 0, -5, -70])
        )
        count = randomness.choice([1, 2, 45, 63, 64, 65, 128, 300])
        expected = [plain.accept(counter) for counter in range(first, first + count)]
        if window.accept_run(first, count):
            taken += 1
            assert all(expected)
            assert first > greatest
        else:
            assert first <= greatest
            assert [window.accept(counter) for counter in range(first, first + count)] == expected
        greatest = max(greatest, first + count - 1)
        assert window._words == plain._words
        assert window._greatest == plain._greatest == greatest
    assert taken > 2000


def test_a_run_past_the_limit_is_refused_whole() -> None:
    window = ReplayWindow()
    assert not window.accept_run(REJECT_AFTER_MESSAGES - 3, 4)
    assert window.accept_run(REJECT_AFTER_MESSAGES - 3, 3)
    assert not window.accept(REJECT_AFTER_MESSAGES - 2)


def test_counter_zero_of_a_fresh_window_goes_alone() -> None:
    window = ReplayWindow()
    assert not window.accept_run(0, 2)
    assert window.accept(0)
    assert window.accept_run(1, 2)


def test_what_is_missing_is_counted() -> None:
    window = ReplayWindow()
    assert window.accept_run(1, 10)
    assert (window.greatest, window.missing) == (10, 1)
    assert window.accept(0)
    assert not window.accept(5)
    assert window.accept(13)
    assert (window.greatest, window.missing) == (13, 2)
