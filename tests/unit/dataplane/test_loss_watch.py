"""When blocks are wanted, and when no more: by the counters that a replay window has accepted."""

from dhtvpn.dataplane.loss_watch import HOLD_S, MAX_HOLD_S, REPEAT_S, STRETCH, LossWatch
from dhtvpn.wireguard.replay import ReplayWindow


def pass_stretch(watch: LossWatch, replay: ReplayWindow, now: float, *, lose: int = 0) -> bool:
    """Let a stretch of messages arrive, of which the first ``lose`` are missing."""
    first = replay.greatest + 1
    assert replay.accept_run(first + lose, STRETCH - lose)
    return watch.received(replay, now)


def begun() -> tuple[LossWatch, ReplayWindow]:
    watch, replay = LossWatch(), ReplayWindow()
    assert replay.accept(0)
    assert not watch.received(replay, 0.0)
    return watch, replay


def test_a_stretch_without_loss_is_needed() -> None:
    watch, replay = begun()
    replay.accept_run(1, STRETCH - 1)
    assert not watch.received(replay, 0.0)
    replay.accept(STRETCH)
    assert watch.received(replay, 0.0)


def test_one_missing_message_spoils_its_stretch_only() -> None:
    watch, replay = begun()
    assert not pass_stretch(watch, replay, 0.0, lose=1)
    assert pass_stretch(watch, replay, 0.0)


def test_what_is_late_does_not_count_as_lost() -> None:
    watch, replay = begun()
    replay.accept_run(2, STRETCH)
    replay.accept(1)
    assert watch.received(replay, 0.0)


def test_another_session_begins_a_stretch_of_its_own() -> None:
    watch, _ = begun()
    other = ReplayWindow()
    other.accept_run(1, 2 * STRETCH)
    assert not watch.received(other, 0.0)
    assert pass_stretch(watch, other, 0.0)


def test_after_a_loss_none_are_wanted_for_a_while() -> None:
    watch, replay = begun()
    assert watch.lost(10.0)
    hold = 2 * HOLD_S if MAX_HOLD_S > 10.0 else HOLD_S
    assert not pass_stretch(watch, replay, 10.0 + 0.99 * HOLD_S)
    assert pass_stretch(watch, replay, 10.0 + hold)


def test_losses_of_one_moment_are_one_and_are_said_again_now_and_then() -> None:
    watch, replay = begun()
    assert watch.lost(100.0)
    assert not watch.lost(100.0 + 0.5 * REPEAT_S)
    assert watch.lost(100.0 + 1.5 * REPEAT_S)
    assert pass_stretch(watch, replay, 100.0 + HOLD_S)


def test_each_loss_doubles_the_wait_up_to_a_cap_and_quiet_shortens_it() -> None:
    watch, replay = begun()
    now, waits = 1000.0, []
    for _ in range(9):
        assert watch.lost(now)
        wait = HOLD_S
        while not pass_stretch(watch, replay, now + wait):
            wait *= 2
        waits.append(wait)
        now += wait
    assert waits == [HOLD_S, *(min(HOLD_S * 2**n, MAX_HOLD_S) for n in range(1, 9))]
    now += 3 * MAX_HOLD_S
    assert watch.lost(now)
    assert pass_stretch(watch, replay, now + HOLD_S)
