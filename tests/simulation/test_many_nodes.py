"""The directory among hundreds of simulated nodes, with the marker ``soak`` a thousand: short forms of
scripts/sim."""

import pytest

from dhtvpn.lab.simulation.limits import verdicts
from dhtvpn.lab.simulation.plan import Plan, simulate


def _quiet(text: str) -> None:
    pass


@pytest.mark.parametrize(
    ("nodes", "dead", "hostile"),
    [
        pytest.param(1000, 30.0, None, id="30 % dead", marks=pytest.mark.soak),
        pytest.param(1000, None, 20.0, id="20 % hostile", marks=pytest.mark.soak),
        pytest.param(200, None, 20.0, id="20 % of few hostile"),
    ],
)
def test_lookups_keep_the_limits(nodes: int, dead: float | None, hostile: float | None) -> None:
    figures = simulate(Plan(nodes=nodes, seed=4, dead=dead, hostile=hostile, hours=0, lookups=150), _quiet)
    assert [v for v in verdicts(figures) if not v.holds] == []
    assert figures.by_condition[0].lookups == 150


def test_members_at_rest_cost_little_and_stay_found_while_nodes_come_and_go() -> None:
    figures = simulate(Plan(nodes=100, seed=4, dead=10.0, hours=1.0, lookups=40), _quiet)
    resting = [v for v in verdicts(figures) if "rest" in v.name]
    assert len(resting) == 5
    assert [v for v in resting if not v.holds] == []
    assert figures.watch is not None
    assert figures.watch.joins == figures.watch.seen > 0
    assert figures.watch.seen_s["p50"] < 1.0


def test_the_same_seed_gives_the_same_figures() -> None:
    plan = Plan(nodes=100, seed=9, dead=20.0, hostile=20.0, hours=0, lookups=40)
    assert simulate(plan, _quiet) == simulate(plan, _quiet)
