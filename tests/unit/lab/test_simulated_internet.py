"""The simulated internet itself: addresses, delays, NATs, counters."""

import asyncio
import ipaddress
import random
from statistics import median

import pytest
from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.simulation.address_plan import endpoints
from dhtvpn.lab.simulation.internet import OVERHEAD, Internet
from dhtvpn.lab.simulation.latency import MEDIAN_RTT_S, Latencies


def test_every_site_has_a_24_of_its_own_that_looks_public() -> None:
    addresses = [ipaddress.IPv4Address(endpoint.host) for endpoint in endpoints(0, 12_000)]
    assert len({address.packed[:3] for address in addresses}) == 12_000
    assert all(address.is_global and not address.is_multicast for address in addresses)


def test_the_plan_of_addresses_does_not_depend_on_the_order_of_asking() -> None:
    late = endpoints(500, 10)
    assert endpoints(0, 510)[500:] == late


def test_the_median_round_trip_is_as_ordered_with_a_long_tail() -> None:
    rng = random.Random(3)
    latencies = Latencies(500, rng)
    rtts = [latencies.rtt_s(rng.randrange(500), rng.randrange(500)) for _ in range(5000)]
    assert median(rtts) == pytest.approx(MEDIAN_RTT_S, rel=0.05)
    assert latencies.percentiles_s[99] > 2.5 * latencies.percentiles_s[50]
    assert latencies.rtt_s(1, 2) == latencies.rtt_s(2, 1)


async def _two_lines(loss: float) -> tuple[Internet, list[tuple[float, bytes, Endpoint]]]:
    internet = Internet(Latencies(10, random.Random(1)), random.Random(2), loss)
    a, b = (internet.connect(endpoint, site) for site, endpoint in enumerate(endpoints(0, 2)))
    arrived: list[tuple[float, bytes, Endpoint]] = []
    b.handler = lambda data, source: arrived.append((internet.loop.time(), data, source))
    for _ in range(1000):
        a.send(b"hello", b.endpoint)
    await asyncio.sleep(5.0)
    assert a.sent == 1000
    assert a.sent_octets == 1000 * (5 + OVERHEAD)
    assert b.received_octets == len(arrived) * (5 + OVERHEAD)
    return internet, arrived


def test_datagrams_arrive_late_and_are_counted_with_their_headers() -> None:
    async def scenario() -> None:
        internet, arrived = await _two_lines(loss=0.0)
        assert len(arrived) == 1000
        one_way_s = internet.latencies.rtt_s(0, 1) / 2
        delays = [at - 1000.0 for at, _, _ in arrived]
        assert min(delays) >= one_way_s
        assert max(delays) <= 1.11 * one_way_s
        assert {source for _, _, source in arrived} == {endpoints(0, 1)[0]}

    run(scenario())


def test_some_datagrams_get_lost() -> None:
    async def scenario() -> None:
        _, arrived = await _two_lines(loss=0.1)
        assert 850 < len(arrived) < 950

    run(scenario())


def test_nobody_hears_what_is_sent_to_a_line_that_is_down() -> None:
    async def scenario() -> None:
        internet = Internet(Latencies(10, random.Random(1)), random.Random(2), 0.0)
        a, b = (internet.connect(endpoint, site) for site, endpoint in enumerate(endpoints(0, 2)))
        heard: list[bytes] = []
        b.handler = lambda data, source: heard.append(data)
        a.send(b"on its way", b.endpoint)
        b.up = False
        await asyncio.sleep(5.0)
        internet.disconnect(b)
        a.send(b"to nobody", b.endpoint)
        await asyncio.sleep(5.0)
        assert heard == []

    run(scenario())


def test_what_escapes_a_handler_is_kept_for_the_verdict() -> None:
    async def scenario() -> None:
        internet = Internet(Latencies(10, random.Random(1)), random.Random(2), 0.0)
        a, b = (internet.connect(endpoint, site) for site, endpoint in enumerate(endpoints(0, 2)))

        def broken(data: bytes, source: Endpoint) -> None:
            raise ValueError("a bug")

        b.handler = broken
        a.send(b"x", b.endpoint)
        await asyncio.sleep(5.0)
        assert len(internet.errors) == 1

    run(scenario())
