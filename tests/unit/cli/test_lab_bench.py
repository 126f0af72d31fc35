"""``dhtvpn lab bench`` before it starts: its help, and what it refuses."""

import os
from collections.abc import Callable

import pytest
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no mistake of a test builds a laboratory."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("DHTVPN_BENCH_TUNNELS", raising=False)


def test_help_fits_and_names_tunnels_measurements_and_the_variable(cli: Cli) -> None:
    text = cli("lab", "bench", "--help").stdout
    assert max(len(line) for line in text.splitlines()) <= 80
    for word in ("dhtvpn lab bench", "--quick", "wireguard-go", "lossy", "DHTVPN_BENCH_TUNNELS", "--json"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "tink"], "there is no tunnel 'tink'"),
        (["--measure", "speed"], "there is no measurement 'speed'"),
        (["--rounds", "0"], "is not in the range"),
        (["--json", "--markdown"], "--json and --markdown"),
    ],
)
def test_wrong_words_are_refused_with_a_sentence(cli: Cli, arguments: list[str], complaint: str) -> None:
    result = cli("lab", "bench", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_without_root_it_says_so(cli: Cli) -> None:
    result = cli("lab", "bench", "--only", "none")
    assert result.exit_code == 1
    assert "run it as root" in result.stderr
