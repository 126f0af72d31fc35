"""Which tunnels a run takes, and the user's own."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from dhtvpn.errors import DhtVpnError, UsageError
from dhtvpn.lab.bench import extra_tunnels, known_tunnels
from dhtvpn.lab.bench.pair import Pair


@pytest.fixture(autouse=True)
def nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(extra_tunnels.VARIABLE, raising=False)


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool, path: f"/bin/{tool}")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair("mine", "dvl-0000-", tmp_path)


def names(choice: known_tunnels.Choice) -> list[str]:
    return [tunnel.name for tunnel in choice.tunnels]


def test_all_tunnels_fit_the_table_and_have_one_name_each() -> None:
    tunnels = known_tunnels.built_in()
    assert len({tunnel.name for tunnel in tunnels}) == len(tunnels)
    assert all(len(tunnel.title) <= 19 for tunnel in tunnels)
    assert {known_tunnels.REFERENCE, known_tunnels.WIRE} <= {tunnel.name for tunnel in tunnels}


@pytest.mark.usefixtures("everything_installed")
def test_only_takes_those_in_our_order() -> None:
    assert names(known_tunnels.choose(["tinc", "none"])) == ["none", "tinc"]
    assert len(names(known_tunnels.choose([]))) == 9


def test_what_is_not_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool == "wg" else f"/bin/{tool}")
    choice = known_tunnels.choose([])
    assert set(choice.left_out) == {"wireguard-go", "dhtvpn-stock"}
    assert choice.left_out["wireguard-go"] == "wg not found on PATH"
    with pytest.raises(UsageError, match="nothing to measure: wg not found"):
        known_tunnels.choose(["wireguard-go"])


def test_an_unknown_tunnel_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no tunnel 'tink': choose from none, dhtvpn-aes"):
        known_tunnels.choose(["tink"])


@pytest.mark.usefixtures("everything_installed")
def test_the_users_own_come_from_a_file_or_the_variable_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document = json.dumps({"mine": {"up": "true"}})
    monkeypatch.setenv(extra_tunnels.VARIABLE, document)
    assert names(known_tunnels.choose(["mine"])) == ["mine"]
    file = tmp_path / "tunnels.json"
    file.write_text(document)
    monkeypatch.setenv(extra_tunnels.VARIABLE, str(file))
    assert names(known_tunnels.choose([]))[-1] == "mine"


def test_a_program_of_the_users_that_is_not_here_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(extra_tunnels.VARIABLE, '{"mine": {"up": "true", "programs": ["no-such-tool"]}}')
    choice = known_tunnels.choose(["none", "mine"])
    assert choice.left_out == {"mine": "no-such-tool not found on PATH"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("/no/such/file", "cannot be read"),
        ("{", "is no JSON"),
        ('{"Mine": {"up": "true"}}', "is no name"),
        ('{"-x": {"up": "true"}}', "is no name"),
        ('{"tinc": {"up": "true"}}', "has a tunnel tinc already"),
        ('{"mine": {}}', "needs an object with the command 'up'"),
        ('{"mine": "true"}', "needs an object with the command 'up'"),
        ('{"mine": {"up": "true", "stop": "x"}}', "has 'stop'"),
        ('{"mine": {"up": "true", "down": 3}}', "'down' must be a command"),
        ('{"mine": {"up": "true", "programs": "x"}}', "'programs' must be a list"),
        (json.dumps({f"t{n}": {"up": "true"} for n in range(17)}), "at most 16"),
    ],
)
def test_what_is_wrong_with_the_users_own_is_said(
    monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    monkeypatch.setenv(extra_tunnels.VARIABLE, text)
    with pytest.raises(UsageError, match=complaint):
        known_tunnels.choose([])


def test_the_document_must_be_an_object() -> None:
    with pytest.raises(UsageError, match="must be an object"):
        extra_tunnels.parse("[]", [])


def test_up_and_down_are_told_what_to_join(pair: Pair) -> None:
    (tunnel,) = extra_tunnels.parse(
        json.dumps({"mine": {"up": "env | grep ^BENCH_ | sort", "down": "echo down $BENCH_LEFT_NAMESPACE"}}),
        [],
    )
    tunnel.start(pair)
    tunnel.down(pair)
    said = pair.left.log_file("mine").read_text()
    assert "BENCH_LEFT_NAMESPACE=dvl-0000-mine-left\n" in said
    assert "BENCH_RIGHT_UNDERLAY=198.18.0.2\n" in said
    assert "BENCH_RIGHT_OVERLAY=10.88.0.2\n" in said
    assert said.endswith("down dvl-0000-mine-left\n")
    assert set(extra_tunnels.environment_of(pair)) == {
        line.partition("=")[0] for line in said.splitlines() if line.startswith("BENCH_")
    }


def test_an_up_command_that_fails_or_hangs_is_a_sentence(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (fails,) = extra_tunnels.parse('{"mine": {"up": "echo no key; exit 3"}}', [])
    with pytest.raises(DhtVpnError, match=r"failed \(3\): no key"):
        fails.start(pair)

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("sh", 30)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DhtVpnError, match="did not end"):
        fails.start(pair)
