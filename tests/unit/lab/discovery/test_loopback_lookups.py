"""Lookups on real sockets while a part of the nodes is dead: small for every run, whole behind a marker."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

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


class Endless:
    """A directory whose lookups yield this and never end."""

    def __init__(self, *envelopes: bytes) -> None:
        self._envelopes = envelopes

    async def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        for envelope in self._envelopes:
            yield envelope
        await asyncio.Event().wait()


async def test_a_lookup_past_the_deadline_is_not_found_and_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loopback, "LOOKUP_DEADLINE_S", 0.05)
    record = loopback._record()
    lost: Any = Endless(b"another")
    found, ended = await loopback._look_up(lost, record)
    assert found is None
    assert 0.05 <= ended < TOLERANCE
    late: Any = Endless(record.envelope)
    found, ended = await loopback._look_up(late, record)
    assert found is not None
    assert found <= ended
    assert ended >= 0.05, "the record was there; only the search was given up"


@pytest.mark.soak
async def test_two_hundred_nodes_keep_the_limits() -> None:
    figures = report.of_outcome(await loopback.measure(200, 0.3, 100, seed=1))
    assert not [figure for figure in figures if not figure.ok]


def test_every_node_has_a_prefix_of_its_own() -> None:
    prefixes = {loopback.address(number).rpartition(".")[0] for number in range(400)}
    assert len(prefixes) == 400
