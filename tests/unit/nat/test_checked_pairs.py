"""What an agent counts of a pair, and how it says it."""

import pytest

from dhtvpn.nat.checked_pairs import CheckCount, PairResult


def test_a_round_trip_counts_only_where_one_request_was_sent() -> None:
    count = CheckCount()
    count.begin()
    count.sent(1.0)
    count.sent(1.25)
    count.answered(1.3)
    assert count.rtt_ms is None and count.requests == 2
    count.begin()
    count.sent(2.0)
    count.answered(2.02)
    assert count.rtt_ms == pytest.approx(20.0) and count.requests == 3


@pytest.mark.parametrize(
    ("count", "result", "reason"),
    [
        (CheckCount(over_budget=2), PairResult.NOT_TRIED, "budget"),
        (CheckCount(), PairResult.NOT_TRIED, "not its turn yet"),
        (CheckCount(requests=1, refused=True), PairResult.FAILED, "refused by the peer"),
        (CheckCount(requests=9, over_budget=1), PairResult.NO_ANSWER, "budget for unanswered checks used up"),
        (CheckCount(requests=9), PairResult.NO_ANSWER, None),
        (CheckCount(requests=1), PairResult.SUCCEEDED, None),
    ],
)
def test_reasons(count: CheckCount, result: PairResult, reason: str | None) -> None:
    assert count.reason(result) == reason
