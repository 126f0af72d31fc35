"""Answers per address, prefix and in total, silent endpoints, subscriptions: the capped tables."""

import random
import tracemalloc

import pytest

from dhtvpn.discovery.limits import (
    BURST,
    CELLS,
    MAX_PROVEN,
    PREFIX_BURST,
    PREFIX_RATE_PER_S,
    RATE_PER_S,
    AnswerLimit,
)
from dhtvpn.discovery.silence import MAX_SILENT, SILENT_AFTER_S, SILENT_FOR_S, Silence
from dhtvpn.discovery.subscriptions import LEASE_S, SUBSCRIPTION_OVERHEAD, Subscriptions
from dhtvpn.endpoint import Endpoint

HERE = Endpoint("198.18.0.1", 1)
KEY, OTHER = bytes(20), bytes([1]) * 20


def limiter(**options):
    return AnswerLimit(random.Random(7).randbytes, 0.0, **options)


def answered(limit, sources, seconds, per_s, start=0.0):
    """How many of evenly spaced requests from ``sources``, in turn, are answered."""
    return sum(
        limit.allows(sources[number % len(sources)], start + number / per_s)
        for number in range(int(seconds * per_s))
    )


def test_answers_are_limited_per_address_whatever_the_port():
    limit = limiter(total_per_s=1e6)
    allowed = sum(limit.allows(Endpoint("198.18.0.1", port), 0.0) for port in range(1, 1000))
    assert allowed == BURST
    assert limit.allows(Endpoint("198.18.0.2", 1), 0.0)
    assert sum(limit.allows(HERE, 1.0) for _ in range(1000)) == RATE_PER_S


def test_an_ipv6_network_is_one_address():
    limit = limiter(rate_per_s=1, burst=2)
    hosts = [Endpoint(f"2001:db8::{n}", 1) for n in range(1, 5)]
    assert [limit.allows(host, 0.0) for host in hosts] == [True, True, False, False]
    assert limit.allows(Endpoint("2001:db8:0:1::1", 1), 0.0)


def test_answers_are_limited_per_prefix():
    """256 addresses in one /24 get what four would."""
    sources = [Endpoint(f"198.18.0.{n}", 1) for n in range(256)]
    limit = limiter(total_per_s=1e6)
    assert answered(limit, sources, 10.0, 5000) == pytest.approx(
        PREFIX_BURST + 10 * PREFIX_RATE_PER_S, rel=0.01
    )


def test_answers_are_limited_in_total():
    sources = [Endpoint(f"198.{n >> 8}.{n & 255}.1", 1) for n in range(20_000)]
    limit = limiter(total_per_s=500.0)
    assert 4 * 500 <= answered(limit, sources, 4.0, 5000) <= 500 + 4 * 500
    assert limit.busy


@pytest.mark.parametrize("flooding", [32, 512])
def test_the_quiet_are_answered_while_others_flood(flooding):
    """20,000 a second from all over 198.18.0.0/15 or a part of it; somebody elsewhere asks now and then."""
    limit = limiter(total_per_s=2000.0)
    flood = [Endpoint(f"198.{18 + n % 2}.{n // 2 % 256}.{n % 251}", 1) for n in range(flooding)]
    quiet = [Endpoint(f"203.0.{n}.2", 1) for n in range(50)]
    answered(limit, flood, 5.0, 20_000)
    assert limit.busy
    served = 0
    for step in range(200):
        at = 5.0 + step * 0.01
        answered(limit, flood, 0.01, 20_000, start=at)
        served += limit.allows(quiet[step % len(quiet)], at + 0.01)
    assert served >= 198


def test_the_proven_are_answered_while_the_whole_internet_floods():
    """Forged sources without end: nothing tells a newcomer from them, but a token tells who is known."""
    limit = limiter(total_per_s=2000.0)
    rng = random.Random(1)
    flood = [
        Endpoint(f"{rng.randrange(1, 224)}.{rng.randrange(256)}.{rng.randrange(256)}.1", 1)
        for _ in range(40_000)
    ]
    known = [Endpoint(f"203.0.{n}.2", 1) for n in range(50)]
    for source in known:
        limit.proven(source, 0.0)
    answered(limit, flood, 2.0, 20_000)
    served = 0
    for step in range(200):
        at = 2.0 + step * 0.01
        answered(limit, flood, 0.01, 20_000, start=at)
        served += limit.allows(known[step % len(known)], at + 0.01)
    assert served >= 190


def test_a_proven_address_that_is_not_quiet_waits_like_others():
    limit = limiter(total_per_s=100.0)
    limit.proven(HERE, 0.0)
    flood = [Endpoint("198.18.0.1", 1)]
    allowed = answered(limit, flood, 1.0, 1000)
    assert allowed < 200
    assert limit._total >= 0.4 * limit._total_burst


def test_less_is_answered_while_reading_lags_behind_and_the_rate_comes_back():
    limit = limiter(total_per_s=1000.0)
    flood = [Endpoint(f"198.18.{n}.1", 1) for n in range(250)]
    answered(limit, flood, 2.0, 5000)
    for step in range(8):
        limit.slow_down(2.0 + step * 0.3)
    slow = answered(limit, flood, 2.0, 5000, start=5.0)
    assert slow < 1000
    assert limit.allows(Endpoint("203.0.0.1", 1), 7.0), "the quiet are answered even so"
    assert answered(limit, flood, 2.0, 5000, start=20.0) >= 2000


def test_the_tables_have_a_fixed_size():
    limit = limiter()
    for number in range(MAX_PROVEN + 5000):
        source = Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
        limit.allows(source, 0.0)
        limit.proven(source, 0.0)
    assert len(limit._proven) == MAX_PROVEN
    assert {len(cells._levels) for cells in (limit._addresses, limit._prefixes, limit._quiet)} == {CELLS}


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


def watchers_from(prefix, count):
    return [Endpoint(f"{prefix}.{n % 256}", 1 + n // 256) for n in range(count)]


def test_a_flood_of_subscriptions_takes_no_lease_of_others():
    """256 addresses in one /24; then honest watchers from 60 other prefixes, all of whom stay."""
    subscriptions = Subscriptions(max_total=300)
    for n, watcher in enumerate(watchers_from("198.18.0", 1000)):
        subscriptions.subscribe(n.to_bytes(20, "big"), watcher, 0.0)
    assert len(subscriptions) == 300
    honest = [Endpoint(f"203.0.{n}.7", 1) for n in range(60)]
    assert all(subscriptions.subscribe(KEY, watcher, 1.0) for watcher in honest)
    for n, watcher in enumerate(watchers_from("198.18.0", 1000)):
        subscriptions.subscribe(n.to_bytes(20, "little"), watcher, 2.0)
    assert subscriptions.watchers(KEY, 3.0) == honest
    assert len(subscriptions) == 300


def test_who_fills_a_topic_with_watchers_gives_way_to_members():
    subscriptions = Subscriptions(max_per_topic=16)
    for port in range(1, 40):
        subscriptions.subscribe(KEY, HERE._replace(port=port), 0.0)
    members = [Endpoint(f"203.0.{n}.7", 1) for n in range(8)]
    assert all(subscriptions.subscribe(KEY, member, 1.0) for member in members)
    assert not subscriptions.subscribe(KEY, HERE._replace(port=99), 1.0)
    assert set(members) <= set(subscriptions.watchers(KEY, 2.0))
    assert len(subscriptions) == 16


def test_subscriptions_cost_what_they_are_counted_as():
    subscriptions = Subscriptions(max_total=3000)
    tracemalloc.start()
    for number in range(3000):
        watcher = Endpoint(f"203.{number >> 8}.{number & 255}.1", 1)
        subscriptions.subscribe(number.to_bytes(20, "big"), watcher, 0.0)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.5 * SUBSCRIPTION_OVERHEAD < used / len(subscriptions) < SUBSCRIPTION_OVERHEAD
