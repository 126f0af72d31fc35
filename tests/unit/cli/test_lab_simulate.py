"""``dhtvpn lab simulate``: its help, what it refuses, and a small run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Cli = Callable[..., Result]


def test_help_fits_and_names_every_option(cli: Cli) -> None:
    text = cli("lab", "simulate", "--help").stdout
    assert max(len(line) for line in text.splitlines()) <= 80
    options = ("nodes", "seed", "dead", "hostile", "hours", "lookups", "networks", "plot", "json")
    assert [name for name in options if f"--{name}" not in text] == []


def test_too_few_nodes_are_refused(cli: Cli) -> None:
    result = cli("lab", "simulate", "--nodes", "10")
    assert result.exit_code == 2
    assert "is not in the range" in result.stderr


def test_plots_without_matplotlib_are_refused_before_anything_runs(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = cli("lab", "simulate", "--plot", str(tmp_path))
    assert result.exit_code == 2
    assert "dhtvpn[plot]" in result.stderr
    assert "lookups," not in result.stderr


def test_json_tells_figures_and_verdict(cli: Cli) -> None:
    result = cli(
        "lab", "simulate", "--nodes", "100", "--lookups", "40", "--dead", "10", "--hours", "0", "--json"
    )
    document = json.loads(result.stdout)
    assert document["by_size"][0]["nodes"] == 100
    assert document["by_condition"][0]["dead_percent"] == 10
    assert result.exit_code == (0 if document["ok"] else 1)
