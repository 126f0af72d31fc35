"""The soft timeout: RFC 6298 by node and over all nodes, its bounds, and what has no say in it."""

import pytest

from dhtvpn.discovery.round_trips import (
    AMBIGUOUS_S,
    FRESH_S,
    INITIAL_S,
    MAX_NODES,
    MAX_S,
    MIN_S,
    Estimate,
    RoundTrips,
)
from dhtvpn.endpoint import Endpoint

NODE, OTHER = Endpoint("198.18.0.1", 4690), Endpoint("198.18.1.1", 4690)


def heard(round_trips, *samples_s, endpoint=NODE):
    for sample_s in samples_s:
        round_trips.heard(endpoint, sample_s, 0.0)


def test_without_a_sample_the_timeout_is_the_initial_one():
    assert RoundTrips().timeout_s(NODE, 0.0) == RoundTrips().stranger_timeout_s == INITIAL_S


def test_the_first_sample_allows_for_twice_its_length_of_variation():
    """RFC 6298 section 2.2: srtt = R, rttvar = R/2, so R + 4 * R/2."""
    round_trips = RoundTrips()
    heard(round_trips, 0.08)
    assert round_trips.timeout_s(NODE, 0.0) == pytest.approx(0.24)


def test_later_samples_are_smoothed():
    """RFC 6298 section 2.3, once there are so many that 1/4 and 1/8 are the greater weights."""
    estimate = Estimate(srtt_s=0.1, rttvar_s=0.02, samples=20, clear=True)
    estimate.heard(0.18, 0.0, 1 / 8, 1 / 4)
    assert estimate.rttvar_s == pytest.approx(0.75 * 0.02 + 0.25 * 0.08)
    assert estimate.srtt_s == pytest.approx(0.875 * 0.1 + 0.125 * 0.18)


def test_a_steady_node_is_waited_for_little_longer_than_it_takes():
    round_trips = RoundTrips()
    heard(round_trips, *[0.2] * 40)
    assert 0.2 <= round_trips.timeout_s(NODE, 0.0) < 0.22


def test_a_node_is_judged_by_its_own_history_a_stranger_by_that_of_all():
    round_trips = RoundTrips()
    heard(round_trips, *[0.4] * 20, endpoint=NODE)
    heard(round_trips, *[0.05] * 60, endpoint=OTHER)
    assert round_trips.timeout_s(OTHER, 0.0) == MIN_S
    assert round_trips.timeout_s(NODE, 0.0) >= 0.4
    stranger_s = round_trips.timeout_s(Endpoint("198.18.2.1", 4690), 0.0)
    assert MIN_S < stranger_s == round_trips.stranger_timeout_s


def test_the_timeout_has_bounds():
    fast, slow = RoundTrips(), RoundTrips()
    heard(fast, *[0.001] * 20)
    heard(slow, *[1.9] * 20)
    assert (fast.timeout_s(NODE, 0.0), slow.timeout_s(NODE, 0.0)) == (MIN_S, MAX_S)
    assert (fast.stranger_timeout_s, slow.stranger_timeout_s) == (MIN_S, MAX_S)


def test_an_answer_that_may_be_to_the_repetition_counts_only_where_there_is_no_other():
    """Karn's algorithm, RFC 6298 section 3; a satellite link has no others."""
    round_trips = RoundTrips()
    heard(round_trips, *[0.08] * 20)
    before = round_trips.timeout_s(NODE, 0.0), round_trips.stranger_timeout_s
    heard(round_trips, AMBIGUOUS_S + 0.08)
    assert (round_trips.timeout_s(NODE, 0.0), round_trips.stranger_timeout_s) == before
    satellite = RoundTrips()
    heard(satellite, *[0.7] * 20)
    assert satellite.stranger_timeout_s >= 0.7
    heard(satellite, 0.08)
    assert satellite.timeout_s(NODE, 0.0) == pytest.approx(0.24), "the first clear one begins anew"


def test_an_old_history_gives_way_to_that_of_all():
    round_trips = RoundTrips()
    heard(round_trips, *[0.02] * 20)
    for _ in range(100):
        round_trips.heard(OTHER, 0.3, FRESH_S)
    assert round_trips.timeout_s(NODE, FRESH_S) == MIN_S
    assert round_trips.timeout_s(NODE, FRESH_S + 1.0) == round_trips.stranger_timeout_s > 0.25


def test_histories_are_capped():
    round_trips = RoundTrips()
    for number in range(MAX_NODES + 10):
        round_trips.heard(Endpoint(f"198.18.{number // 250}.{number % 250}", 1), 0.1, 0.0)
    assert len(round_trips) == MAX_NODES
