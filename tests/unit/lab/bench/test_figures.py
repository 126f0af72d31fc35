"""Medians, spreads, ratios, percentiles."""

import pytest

from dhtvpn.lab.bench.figures import BY_KEY, FIGURES, Summary, percentile, ratio
from dhtvpn.lab.bench.report import GROUPS
from dhtvpn.lab.bench.schedule import MEASURES


def test_a_summary_of_rounds() -> None:
    summary = Summary((3.0, None, 1.0, 2.0, 4.0))
    assert summary.median == 2.5
    assert (summary.low, summary.high) == (1.0, 4.0)
    assert summary.spread == pytest.approx(0.6)
    assert summary.failed == 1


@pytest.mark.parametrize("each", [(), (None,), (None, None)])
def test_a_summary_of_nothing(each: tuple[float | None, ...]) -> None:
    summary = Summary(each)
    assert summary.median is summary.low is summary.high is summary.spread is None
    assert summary.failed == len(each)


def test_no_spread_around_zero() -> None:
    assert Summary((0.0, 0.0)).spread is None


def test_a_ratio_needs_both_and_something_to_divide_by() -> None:
    assert ratio(3.0, 1.5) == 2.0
    assert ratio(None, 1.5) is ratio(3.0, None) is ratio(3.0, 0.0) is None


def test_percentiles_by_nearest_rank() -> None:
    values = [float(value) for value in range(200, 0, -1)]
    assert percentile(values, 0.50) == 100.0
    assert percentile(values, 0.99) == 198.0
    assert percentile([5.0], 0.99) == percentile([5.0], 0.0) == 5.0


def test_every_figure_is_measured_and_shown_once() -> None:
    keys = [figure.key for figure in FIGURES]
    assert len(BY_KEY) == len(keys)
    assert sorted(key for measure in MEASURES for key in measure.figures) == sorted(keys)
    assert sorted(key for _, group in GROUPS for key in group) == sorted(keys)
