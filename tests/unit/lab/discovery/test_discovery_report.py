"""Figures of the discovery measurements: what counts, what is missed."""

import math

import pytest

from dhtvpn.lab.discovery import report, rounds
from dhtvpn.lab.discovery.loopback import Outcome
from dhtvpn.lab.discovery.rounds import Round
from dhtvpn.lab.topology import PORT_RESTRICTED, Role

QUICK = Round(0.8, 1.1, {"code_loaded": 0.3, "node_up": 0.4, "published": 0.9})


def named(figures: list[report.Figure], text: str) -> report.Figure:
    (figure,) = [figure for figure in figures if figure.name.endswith(text)]
    return figure


def test_the_median_and_the_worst_join_have_limits() -> None:
    figures = report.of_rounds([QUICK, QUICK, Round(2.6, 3.0, {})], watch=True)
    assert named(figures, "found, median").value == 0.8
    assert named(figures, "after the code was loaded").value == pytest.approx(0.5)
    worst = named(figures, "worst of 3")
    assert (worst.value, worst.limit, worst.ok) == (2.6, 2.5, False)
    assert [figure.name for figure in figures if not figure.ok] == [worst.name]


def test_without_watch_only_the_worst_has_a_limit() -> None:
    figures = report.of_rounds([Round(3.9, 4.2, {})] * 3, watch=False)
    assert all(figure.ok for figure in figures)
    assert not all(figure.ok for figure in report.of_rounds([Round(4.1, 4.2, {})], watch=False))


def test_a_member_that_was_not_found_counts_as_infinitely_late() -> None:
    figures = report.of_rounds([QUICK, Round(None, None, {"code_loaded": 0.3})], watch=True)
    assert named(figures, "worst of 2").value == math.inf
    document = report.to_json(figures, {"watch": report.rounds_as_json([QUICK])})
    assert document["ok"] is False
    assert [part["value"] for part in document["figures"] if "worst" in part["name"]] == [None]
    assert document["watch"] == [
        {"found_s": 0.8, "connected_s": 1.1, "phases": {"code_loaded": 0.3, "node_up": 0.4, "published": 0.9}}
    ]


def test_lookups_and_publications_have_limits() -> None:
    lookups: list[float | None] = [0.1] * 94 + [0.6] * 6
    figures = report.of_outcome(Outcome(200, 60, lookups, [0.7] * 100, [0.9] * 100, [8] * 100))
    assert [figure.name for figure in figures if not figure.ok] == ["lookup, record there, p95"]
    whole = named(figures, "whole lookup, closest nodes heard, p95")
    assert (whole.value, whole.limit) == (0.7, None)
    lost = report.of_outcome(Outcome(200, 60, [0.1] * 99 + [None], [0.7] * 100, [1.1] * 100, [8] * 99 + [7]))
    assert [figure.name for figure in lost if not figure.ok] == [
        "lookups that found the record",
        "publication, p95",
    ]
    assert named(lost, "fewest").value == 7


def test_percentiles_go_by_nearest_rank() -> None:
    assert report.percentile([5.0, 1.0, 3.0], 95) == 5.0
    assert report.percentile([float(number) for number in range(1, 101)], 95) == 95.0
    assert report.percentile([2.0], 50) == 2.0


def test_the_topology_has_the_round_trip_between_any_two_sites() -> None:
    built = rounds.topology(50, 0.1, seed=3)
    assert built.lines is not None
    assert 4 * built.lines.delay_s == pytest.approx(0.1)
    assert sum(host.role is Role.PLAIN for host in built.hosts) == 50
    assert [built.nats_of(built.host(name)) for name in (rounds.FIRST, rounds.SECOND)] == [
        [PORT_RESTRICTED]
    ] * 2
    assert rounds.topology(5, 0.0, seed=1).lines is None
