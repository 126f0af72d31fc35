"""Budgets, the load meter and the rates per source."""

from dhtvpn.endpoint import Endpoint
from dhtvpn.wireguard.constants import MAX_RATED_SOURCES, SOURCE_RATE_BURST
from dhtvpn.wireguard.load import Budget, LoadMeter, SourceRates


def test_a_budget_is_per_second() -> None:
    budget = Budget(2)
    assert [budget.take(now) for now in (0.0, 0.5, 0.9, 1.0, 1.1, 1.2)] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]


def test_load_lingers_for_a_second() -> None:
    meter = LoadMeter(limit=3)
    assert [meter(10.0) for _ in range(4)] == [False, False, False, True]
    assert meter(10.9)
    assert meter(11.5)  # 10.9 was over the limit too
    assert not meter(13.0)


def test_each_source_has_its_own_bucket() -> None:
    rates = SourceRates()
    here, there = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 1)
    assert sum(rates.allow(here, 0.0) for _ in range(20)) == SOURCE_RATE_BURST
    assert rates.allow(there, 0.0)
    assert not rates.allow(here, 0.04)
    assert rates.allow(here, 0.1)


def test_an_ipv6_64_is_one_source() -> None:
    rates = SourceRates()
    allowed = [rates.allow(Endpoint(f"2001:db8::{number:x}", number), 0.0) for number in range(1, 20)]
    assert sum(allowed) == SOURCE_RATE_BURST
    assert rates.allow(Endpoint("2001:db8:0:1::1", 1), 0.0)


def test_the_table_is_capped_and_swept() -> None:
    rates = SourceRates()
    for number in range(MAX_RATED_SOURCES + 50):
        rates.allow(Endpoint(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}", 1), 0.0)
    assert len(rates) == MAX_RATED_SOURCES
    assert not rates.allow(Endpoint("192.0.2.1", 1), 0.1)
    assert rates.allow(Endpoint("192.0.2.1", 1), 2.0)
    assert len(rates) == 1
