"""Answers per address, silent endpoints, subscriptions: the capped tables."""

import pytest

from dhtvpn.discovery.limits import BURST, MAX_SOURCES, RATE_PER_S, AnswerLimit
from dhtvpn.discovery.silence import MAX_SILENT, SILENT_AFTER_S, SILENT_FOR_S, Silence
from dhtvpn.discovery.subscriptions import LEASE_S, Subscriptions
from dhtvpn.endpoint import Endpoint

HERE = Endpoint("198.18.0.1", 1)
KEY, OTHER = bytes(20), bytes([1]) * 20


def test_answers_are_limited_per_address_whatever_the_port():
    limit = AnswerLimit()
    allowed = sum(limit.allows(Endpoint("198.18.0.1", port), 0.0) for port in range(1, 1000))
    assert allowed == BURST
    assert limit.allows(Endpoint("198.18.0.2", 1), 0.0)
    assert sum(limit.allows(HERE, 1.0) for _ in range(1000)) == RATE_PER_S


def test_an_ipv6_network_is_one_address():
    limit = AnswerLimit(rate_per_s=1, burst=2)
    hosts = [Endpoint(f"2001:db8::{n}", 1) for n in range(1, 5)]
    assert [limit.allows(host, 0.0) for host in hosts] == [True, True, False, False]
    assert limit.allows(Endpoint("2001:db8:0:1::1", 1), 0.0)


def test_the_table_of_sources_is_capped():
    limit = AnswerLimit()
    for number in range(MAX_SOURCES + 50):
        limit.allows(Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1), 0.0)
    assert len(limit) == MAX_SOURCES


@pytest.mark.parametrize(
    ("after_s", "silent"),
    [(0.0, False), (SILENT_AFTER_S, True), (SILENT_FOR_S - 0.1, True), (SILENT_FOR_S, False)],
)
def test_an_endpoint_that_says_nothing_is_silent_for_a_minute(after_s, silent):
    silence = Silence()
    silence.asked(HERE, 0.0)
    silence.asked(HERE, 0.5)
    assert silence.holds(HERE, after_s) is silent


def test_silence_is_broken_by_a_datagram_and_capped():
    silence = Silence()
    silence.asked(HERE, 0.0)
    silence.broken(HERE)
    assert not silence.holds(HERE, 2.0)
    for port in range(MAX_SILENT + 10):
        silence.asked(Endpoint("198.18.0.1", port + 1), 0.0)
    assert len(silence) == MAX_SILENT


def test_a_lease_ends_unless_it_is_renewed():
    subscriptions = Subscriptions()
    assert subscriptions.subscribe(KEY, HERE, 0.0)
    assert subscriptions.watchers(KEY, LEASE_S - 1) == [HERE]
    assert subscriptions.watchers(KEY, LEASE_S) == []
    subscriptions.subscribe(KEY, HERE, 25.0)
    subscriptions.expire(LEASE_S)
    assert subscriptions.watchers(KEY, LEASE_S) == [HERE]
    subscriptions.expire(200.0)
    assert len(subscriptions) == 0


@pytest.mark.parametrize(
    "caps",
    [{"max_per_topic": 2}, {"max_total": 2}, {"max_per_address": 2}],
    ids=lambda caps: next(iter(caps)),
)
def test_subscriptions_are_capped_and_freed(caps):
    subscriptions = Subscriptions(**caps)
    outcomes = [subscriptions.subscribe(KEY, HERE._replace(port=port), 0.0) for port in (1, 2, 3)]
    assert outcomes == [True, True, False]
    assert subscriptions.subscribe(KEY, HERE, 1.0), "renewing is always allowed"
    assert subscriptions.subscribe(KEY, HERE._replace(port=3), LEASE_S + 0.5), "ended leases make room"
    subscriptions.drop(KEY, HERE)
    subscriptions.drop(OTHER, HERE)
    assert len(subscriptions) == 1
