"""The command line as a whole: help, options before and after, exit codes, one sentence per failure."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dhtvpn import __version__, errors
from dhtvpn.cli import exits
from dhtvpn.cli.main import COMMANDS, app

Cli = Callable[..., Result]

OURS = [name for name in COMMANDS if name != "lab"]
STOCK_PEER = [["stock-peer", name] for name in ("add", "list", "remove")]


def help_of(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("words", [[], *[[name] for name in OURS], *STOCK_PEER], ids=" ".join)
def test_every_command_shows_an_example_within_80_columns(words: list[str]) -> None:
    text = help_of(*words)
    assert "Examples:\n" in text
    assert "dhtvpn " + " ".join(words) in text.partition("Examples:")[2]
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    "words", [*[[name] for name in OURS if name != "stock-peer"], *STOCK_PEER], ids=" ".join
)
def test_every_command_takes_json_and_the_state_directory(words: list[str]) -> None:
    text = help_of(*words)
    assert "--json" in text
    assert "--state-dir" in text


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys\nfrom dhtvpn.cli.main import run\n"
        "try: run()\nexcept SystemExit: pass\n"
        "heavy = ['rich', 'aiohttp', 'dhtvpn.daemon', 'dhtvpn.cli.join', 'dhtvpn.lab', 'http.client',"
        " 'dhtvpn.netcheck', 'dhtvpn.cli.netcheck']\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True, timeout=30
    )
    assert all(name in done.stdout for name in COMMANDS)
    assert done.stderr.strip() == "[]"


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"dhtvpn {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DhtVpnError, 1),
        (errors.SystemRefusedError, 1),
        (errors.DamagedStateError, 1),
        (errors.UsageError, 2),
        (errors.InvalidNetworkIdError, 2),
        (errors.NotFoundError, 3),
        (errors.NotRunningError, 3),
        (errors.TimedOutError, 4),
    ],
)
def test_exit_codes_by_the_tree(
    error: type[errors.DhtVpnError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error("what happened: what to do")

    assert exits.run_to_exit(fail) == code
    assert capsys.readouterr().err == "dhtvpn: what happened: what to do\n"


def test_an_unexpected_error_is_one_sentence_without_its_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise KeyError("dv1secret")

    monkeypatch.delenv("DHTVPN_DEBUG", raising=False)
    assert exits.run_to_exit(fail) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "unexpected KeyError in test_main.py line" in said
    assert "DHTVPN_DEBUG=1" in said
    assert "secret" not in said
    monkeypatch.setenv("DHTVPN_DEBUG", "1")
    assert exits.run_to_exit(fail) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert exits.run_to_exit(interrupted) == exits.INTERRUPTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nonsense"], "no such command 'nonsense' (see 'dhtvpn --help')"),
        (["create"], "missing argument 'NAME'"),
        (["status", "--nonsense"], "no such option: --nonsense"),
        (["ping", "laptop", "--count", "0"], "is not in the range"),
        (["wait", "--peers", "1", "--peer", "laptop"], "not for both"),
        (["status", "--network", "No Name"], "is no network name"),
        (["stock-peer", "add", "phone", "--public-key", "short"], "no WireGuard key"),
        (["stock-peer", "add", "Ph", "--public-key", "short"], "no name for a stock peer"),
        (["bootstrap", "--listen", "example.net:4690"], "must be an address of this machine"),
        (["bootstrap", "--listen", "0.0.0.0:0"], "the port must be a number"),
        (["bootstrap", "--listen", "0.0.0.0:4690", "--bootstrap", "x"], "is not an address"),
    ],
)
def test_wrong_usage_is_2_and_one_sentence(cli: Cli, words: list[str], sentence: str) -> None:
    result = cli(*words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.startswith("dhtvpn: ")
    assert result.stderr.count("\n") == 1


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: dhtvpn")


def test_options_stand_before_or_after(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(state_dir)
    monkeypatch.setenv("DHTVPN_STATE_DIR", "/nonexistent/elsewhere")
    before = CliRunner().invoke(app, ["--state-dir", place, "--json", "create", "one"])
    after = CliRunner().invoke(app, ["create", "two", "--json", "--state-dir", place])
    both = CliRunner().invoke(app, ["--state-dir", "/nonexistent", "create", "three", "--state-dir", place])
    assert [result.exit_code for result in (before, after, both)] == [0, 0, 0]
    assert sorted(path.name for path in (state_dir / "networks").iterdir()) == ["one", "three", "two"]
    monkeypatch.setenv("DHTVPN_STATE_DIR", place)
    assert '"name": "one"' in CliRunner().invoke(app, ["list", "--json"]).stdout


def test_a_reader_that_goes_away_is_no_traceback(state_dir: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dhtvpn", "--state-dir", str(state_dir), "list", "--json"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1
