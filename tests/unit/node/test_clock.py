"""The comparison of clocks: the verdict, its words, and when it is said."""

import asyncio

import pytest
from virtual_time import run

from dhtvpn.node.clock import CHECK_S, CLOCK_TOLERANCE_S, ClockComparison, judge, sentence

H = 3600.0


@pytest.mark.parametrize(
    ("offsets", "verdict"),
    [
        ([], None),
        ([0.0], None),
        ([CLOCK_TOLERANCE_S], None),
        ([-CLOCK_TOLERANCE_S], None),
        ([CLOCK_TOLERANCE_S + 1], CLOCK_TOLERANCE_S + 1),
        ([-5 * H], -5 * H),
        ([0.2, 1.0, -0.5, 90 * H, 90 * H], None),
        ([5 * H, 5 * H + 1, 5 * H + 2, 0.0, -90 * H], 5 * H),
        ([5 * H, 7 * H], 6 * H),
    ],
)
def test_the_median_decides_and_two_liars_of_five_do_not(offsets: list[float], verdict: float | None) -> None:
    assert judge(offsets) == verdict


@pytest.mark.parametrize(
    ("offset_s", "words"),
    [
        (5 * H, "clock is 5 h behind that of other nodes"),
        (-5 * H + 3, "clock is 5 h ahead of that of other nodes"),
        (301.0, "clock is 5 min behind"),
        (-90 * 60.0, "clock is 90 min ahead of"),
        (2 * H - 1, "clock is 2 h behind"),
        (2 * H, "clock is 2 h behind"),
    ],
)
def test_the_sentence_says_how_far_and_which_way(offset_s: float, words: str) -> None:
    assert words in sentence(offset_s)
    assert "timedatectl set-ntp true" in sentence(offset_s)


def said_over(rounds: list[list[float]]) -> tuple[list[str], list[float | None]]:
    """What is said, and the verdict after each round of answers."""
    said: list[tuple[str, str]] = []
    verdicts: list[float | None] = []
    answers = iter(rounds)

    async def ask() -> list[float]:
        return next(answers)

    async def scenario() -> None:
        comparison = ClockComparison(ask=ask, say=lambda kind, text: said.append((kind, text)))
        assert comparison.offset_s is None
        task = asyncio.create_task(comparison.run())
        for _ in rounds:
            await asyncio.sleep(CHECK_S / 2)
            verdicts.append(comparison.offset_s)
            await asyncio.sleep(CHECK_S / 2 - 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(scenario())
    assert next(answers, None) is None, "one round every CHECK_S"
    assert all(kind == "warning" for kind, _ in said)
    return [text for _, text in said], verdicts


def test_a_right_clock_is_not_mentioned() -> None:
    assert said_over([[0.4], [-2.0, 0.3], []]) == ([], [None] * 3)


def test_a_wrong_clock_is_said_at_once_and_once() -> None:
    said, verdicts = said_over([[5 * H], [5 * H + 2, 5 * H], [5 * H + CLOCK_TOLERANCE_S]])
    assert said == [sentence(5 * H)]
    assert verdicts == [5 * H, 5 * H + 1, 5 * H + CLOCK_TOLERANCE_S]


def test_it_is_said_again_when_it_changes() -> None:
    said, _ = said_over([[5 * H], [-1 * H], [-1 * H]])
    assert said == [sentence(5 * H), sentence(-1 * H)]


def test_it_is_said_again_after_the_clock_was_right() -> None:
    said, verdicts = said_over([[5 * H], [0.0], [5 * H]])
    assert said == [sentence(5 * H)] * 2
    assert verdicts == [5 * H, None, 5 * H]


def test_a_round_without_answers_changes_nothing() -> None:
    said, verdicts = said_over([[5 * H], [], [5 * H]])
    assert said == [sentence(5 * H)]
    assert verdicts == [5 * H] * 3
