"""Lookups on real sockets while a part of the nodes is dead: small for every run, whole behind a marker."""

import pytest

from dhtvpn.lab.discovery import loopback, report

TOLERANCE = 3.0
"""The small run is there for what is found; its times may suffer from whatever else the machine does."""


async def test_a_small_network_with_dead_nodes_finds_everything() -> None:
    outcome = await loopback.measure(40, 0.3, 12, seed=1)
    assert outcome.killed == 12
    assert outcome.found == 1.0
    assert min(outcome.stores) >= 6
    found = [seconds for seconds in outcome.lookups_s if seconds is not None]
    assert report.percentile(found, 50) <= TOLERANCE * report.LOOKUP_P95_S
    assert report.percentile(outcome.publications_s, 50) <= TOLERANCE * report.PUBLICATION_P95_S


@pytest.mark.soak
async def test_two_hundred_nodes_keep_the_limits() -> None:
    figures = report.of_outcome(await loopback.measure(200, 0.3, 100, seed=1))
    assert not [figure for figure in figures if not figure.ok]


def test_every_node_has_a_prefix_of_its_own() -> None:
    prefixes = {loopback.address(number).rpartition(".")[0] for number in range(400)}
    assert len(prefixes) == 400
