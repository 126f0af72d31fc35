"""Idle times grow as long as they are survived, and stay below what was not."""

from dhtvpn.node.keepalive import FIRST_S, LONGEST_S, SPREAD, STEP, IdleTime


def test_they_grow_to_the_longest() -> None:
    idle = IdleTime()
    for _ in range(20):
        idle.survived(idle.due_s(0.5))
    assert idle.interval_s == LONGEST_S


def test_a_path_in_use_says_nothing() -> None:
    idle = IdleTime()
    for _ in range(20):
        idle.survived(5.0)
    assert idle.interval_s == FIRST_S


def test_any_lifetime_is_found_with_one_loss() -> None:
    for lifetime_s in range(18, 59):
        idle, losses = IdleTime(), 0
        for number in range(200):
            idle_s = idle.due_s(number % 5 / 4)
            if idle_s <= lifetime_s:
                idle.survived(idle_s)
            else:
                idle.died(idle_s)
                losses += 1
        assert losses <= 1
        assert idle.interval_s * (1 + SPREAD) <= max(lifetime_s, FIRST_S * (1 + SPREAD))
        assert idle.interval_s >= min(FIRST_S, lifetime_s / STEP / STEP)
        assert idle.limit_s <= LONGEST_S


def test_a_peer_that_has_gone_changes_nothing_for_its_return() -> None:
    idle = IdleTime()
    idle.died(FIRST_S)
    assert idle == IdleTime()
