"""Traffic through a relay, however long, does not make a node flood a victim that somebody names."""

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import probe_allowance as module
from dhtvpn.nat.probe_allowance import ProbeAllowance

VICTIM = "198.18.5.5"


def sent(places: list[Endpoint], seconds: int) -> int:
    """Everybody asks ten times a second for each place."""
    allowance = ProbeAllowance()
    moments = [1000.0 + tenth / 10 for tenth in range(seconds * 10)]
    return sum(allowance.take(place, now) for now in moments for place in places)


def test_an_address_gets_one_a_second_however_many_ports_and_members_name_it() -> None:
    assert 60 <= sent([Endpoint(VICTIM, 777)], 60) <= 60 + module.SITE_BURST
    assert sent([Endpoint(VICTIM, port) for port in range(1, 50)], 60) <= 60 + module.SITE_BURST
    network = [Endpoint(f"2001:db8::{number:x}", 777) for number in range(1, 50)]
    assert sent(network, 60) <= 60 + module.SITE_BURST


def test_all_places_together_have_a_limit_and_few_are_remembered() -> None:
    many = [Endpoint(f"198.18.{number >> 8}.{number & 255}", 777) for number in range(6000)]
    allowance = ProbeAllowance()
    assert sum(allowance.take(place, 1000.0) for place in many) == module.TOTAL_BURST
    assert sum(allowance.take(place, 1001.0) for place in many) == module.TOTAL_RATE
    assert len(allowance._sites) == module.MAX_REMEMBERED


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    allowance = ProbeAllowance()
    taken = [allowance.take(Endpoint(VICTIM, 777), 1000.0 - second) for second in range(10)]
    assert sum(taken) == module.SITE_BURST
