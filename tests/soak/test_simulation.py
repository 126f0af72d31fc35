"""The whole of scripts/sim at 10,000 nodes: a quarter of an hour and more."""

import pytest

from dhtvpn.lab.simulation.limits import verdicts
from dhtvpn.lab.simulation.plan import Plan, simulate

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * 3600)]


def test_ten_thousand_nodes_keep_every_limit() -> None:
    figures = simulate(Plan(nodes=10_000, hours=24.0, lookups=1000), print)
    assert [v for v in verdicts(figures) if not v.holds] == []
