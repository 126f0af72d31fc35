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
