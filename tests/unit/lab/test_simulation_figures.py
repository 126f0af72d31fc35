"""What the simulation makes of its figures: fits, limits, tables, JSON, plots."""

import json
import math
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from dhtvpn.errors import UsageError
from dhtvpn.lab.simulation import growth, plots, report
from dhtvpn.lab.simulation.figures import (
    Figures,
    HeldFigures,
    LookupFigures,
    RestFigures,
    WatchFigures,
    percentiles,
)
from dhtvpn.lab.simulation.limits import verdicts
from dhtvpn.lab.simulation.plan import Plan

ROOT = Path(__file__).parents[3]
SECONDS = {"p50": 0.3, "p95": 0.6, "p99": 0.9}
SOUND = LookupFigures(
    nodes=100,
    dead_percent=0.0,
    hostile_percent=0.0,
    lookups=1000,
    found=1000,
    forged=0,
    rolled_back=0,
    first_s=SECONDS,
    whole_s=SECONDS,
    publish_s=SECONDS,
    confirmed=8.0,
    rounds=2.5,
    datagrams=30.0,
    octets_sent=3000.0,
    octets_received=5000.0,
    escaped=0,
)
MEMBER = RestFigures("member", 10_000, 24.0, 8, 40.0, 50.0, 45.0, 55.0, 0.9, 8)
HELD = HeldFigures(128.0, 307_200.0, 150.0, 60.0, 550_000.0, 1_250_000)
BY_SIZE = [SOUND, replace(SOUND, nodes=1000, datagrams=40.0), replace(SOUND, nodes=10_000, datagrams=50.0)]


def figures(**changes: object) -> Figures:
    whole = Figures(
        seed=1,
        nodes=10_000,
        rtt_s={50: 0.08, 95: 0.17, 99: 0.3},
        loss=0.01,
        by_size=BY_SIZE,
        by_condition=[
            replace(SOUND, nodes=10_000, dead_percent=30.0, found=996),
            replace(SOUND, nodes=10_000, hostile_percent=20.0, found=991),
            replace(SOUND, nodes=10_000, hostile_percent=40.0, found=800),
        ],
        growth=growth.fit([100, 1000, 10_000], [30.0, 40.0, 50.0]),
        rest=[MEMBER, replace(MEMBER, kind="storing", sent=500.0, held=HELD)],
        watch=WatchFigures(1000, 1000, 10, 10, SECONDS),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def missed(of: Figures) -> list[str]:
    return [verdict.name for verdict in verdicts(of) if not verdict.holds]


def test_good_figures_keep_every_limit() -> None:
    assert missed(figures()) == []


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (replace(SOUND, found=998), "found, 100 nodes"),
        (replace(SOUND, dead_percent=30.0, found=994), "found, 100 nodes, 30% dead"),
        (replace(SOUND, hostile_percent=20.0, found=989), "found, 100 nodes, 20% hostile"),
        (replace(SOUND, hostile_percent=40.0, forged=1), "unverified records delivered"),
        (replace(SOUND, hostile_percent=40.0, escaped=1), "exceptions that escaped"),
    ],
)
def test_each_limit_of_a_lookup_can_be_missed(bad: LookupFigures, name: str) -> None:
    assert missed(figures(by_condition=[bad])) == [name]


def test_slow_lookups_and_steep_growth_are_missed_limits() -> None:
    slow = replace(BY_SIZE[2], whole_s={**SECONDS, "p50": 1.1})
    assert missed(figures(by_size=[*BY_SIZE[:2], slow])) == ["lookup p50, 10000 nodes"]
    steep = replace(BY_SIZE[2], datagrams=90.0)
    assert missed(figures(by_size=[*BY_SIZE[:2], steep])) == ["datagrams per lookup, 10000 against 100 nodes"]


def test_a_costly_member_is_a_missed_limit_a_costly_storing_node_is_not() -> None:
    assert missed(figures(rest=[replace(MEMBER, sent=61.0)])) == ["member at rest, sent, 10000 nodes, 24 h"]


def test_members_that_lose_each_other_are_a_missed_limit() -> None:
    lost = WatchFigures(1000, 990, 0, 0, SECONDS)
    assert missed(figures(watch=lost)) == ["members known to each other at rest"]


def test_the_fit_tells_log_n_from_a_power() -> None:
    sizes = [100, 300, 1000, 3000, 10_000]
    logarithmic = growth.fit(sizes, [3.0 + 5.0 * math.log2(n) for n in sizes])
    assert logarithmic.slope == pytest.approx(5.0)
    assert logarithmic.intercept == pytest.approx(3.0)
    assert logarithmic.r_squared == pytest.approx(1.0)
    assert logarithmic.exponent < 0.2
    assert growth.fit(sizes, [float(n) for n in sizes]).exponent == pytest.approx(1.0)


def test_percentiles_of_few_values() -> None:
    assert percentiles([]) == {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    assert percentiles([2.0])["p95"] == 2.0
    assert percentiles([float(n) for n in range(101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_the_plan_has_sizes_up_to_the_asked_one_and_both_sweeps() -> None:
    assert Plan(nodes=1000).sizes == [100, 300, 1000]
    assert Plan(nodes=500).sizes == [100, 300, 500]
    assert [c.dead_percent for c in Plan().conditions if c.dead_percent] == [10, 20, 30, 40, 50]
    assert [c.hostile_percent for c in Plan().conditions if c.hostile_percent] == [5, 10, 20, 30, 40]
    (only,) = Plan(dead=30.0, hostile=20.0).conditions
    assert str(only) == "30% dead, 20% hostile"


def test_the_tables_fit_eighty_columns_and_lose_nothing() -> None:
    console = Console(width=80, record=True, file=None)
    with console.capture() as captured:
        for table in report.tables(figures(), verdicts(figures())):
            console.print(table)
    text = captured.get()
    assert "…" not in text
    assert "99.60%" in text
    assert "43.2" in text, "MB that a storing node sends in a day: 500 octets a second"
    assert "1.25" in text, "MB that a storing node holds, at most"


def test_json_has_the_verdict_and_every_figure() -> None:
    document = json.loads(json.dumps(report.to_json(figures(), verdicts(figures()))))
    assert document["ok"] is True
    assert document["by_size"][2]["datagrams"] == 50.0
    assert document["rest"][0]["sent"] == 40.0
    assert document["rest"][0]["held"] is None
    assert document["rest"][1]["held"]["subscriptions"] == 60.0
    assert {"name", "limit", "measured", "holds"} == set(document["limits"][0])


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"dhtvpn\[plot\]"):
        plots.check_available()


def test_plots_are_drawn_in_both_formats(tmp_path: Path) -> None:
    drawn = plots.draw(figures(), tmp_path / "new")
    assert sorted(drawn) == sorted((tmp_path / "new").iterdir())
    assert {path.name for path in drawn} == {
        f"{name}.{form}"
        for name in ("lookups-by-size", "lookups-dead", "lookups-hostile", "rest")
        for form in ("png", "svg")
    }
    for path in drawn:
        if path.suffix == ".png":
            content = path.read_bytes()
            assert content.startswith(b"\x89PNG\r\n\x1a\n"), path
            assert int.from_bytes(content[16:20], "big") > 1000, "pixels of width, in the IHDR chunk"
        else:
            root = ElementTree.parse(path).getroot()  # noqa: S314 - our own file
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10, "curves, not an empty page"


def test_setup_installs_what_plots_need() -> None:
    """scripts/setup installs the groups ``check`` and ``test``; the extra is for installations with pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = project["project"]["optional-dependencies"]["plot"]
    assert [text for text in needed if text.startswith("matplotlib")]
    assert set(needed) <= set(project["dependency-groups"]["test"])
    assert "--group test" in (ROOT / "scripts" / "setup").read_text()
