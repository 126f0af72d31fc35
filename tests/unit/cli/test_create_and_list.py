"""``create`` and ``list``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from dhtvpn.membership.network_id import NetworkId

Cli = Callable[..., Result]


def test_create_prints_the_network_id_alone_on_the_first_line(cli: Cli) -> None:
    result = cli("create", "home")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert NetworkId.decode(result.stdout.strip()).encode() == result.stdout.strip()
    assert "sudo dhtvpn join home" in result.stderr


def test_create_json(cli: Cli) -> None:
    document = json.loads(cli("create", "home", "--ipv4", "10.77.0.0/16", "--mode", "open", "--json").stdout)
    assert set(document) == {"network_id", "name", "ipv4", "ipv6"}
    assert document["ipv4"] == "10.77.0.0/16"
    assert document["ipv6"].endswith("::/64")


def test_create_twice_fails_and_changes_nothing(cli: Cli, state_dir: Path) -> None:
    cli("create", "home")
    before = (state_dir / "networks" / "home" / "network.json").read_bytes()
    result = cli("create", "home")
    assert result.exit_code == 1
    assert "choose another name" in result.stderr
    assert (state_dir / "networks" / "home" / "network.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["Home"], "is no network name"),
        (["dv1x"], "cannot start with dv1"),
        (["home", "--mode", "shut"], "'shut' is not known"),
        (["home", "--ipv4", "10.77.1.2/16"], "did you mean 10.77.0.0/16"),
        (["home", "--ipv4", "ten"], "is no network"),
        (["home", "--ipv4", "10.77.0.0"], "lacks its prefix length"),
    ],
)
def test_create_refuses(cli: Cli, state_dir: Path, words: list[str], sentence: str) -> None:
    result = cli("create", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert not (state_dir / "networks").exists()


def test_list_without_networks(cli: Cli) -> None:
    result = cli("list")
    assert result.exit_code == 0
    assert "No network is known" in result.stdout


def test_list_shows_what_runs_and_no_secret(cli: Cli, start_node: Callable[[str], object]) -> None:
    network_id = cli("create", "home").stdout.strip()
    cli("create", "w" * 32)
    start_node("home")
    table = cli("list").stdout
    assert "running (pid" in table
    assert "stopped" in table
    assert max(len(line) for line in table.splitlines()) <= 80
    assert network_id not in table
    rows = json.loads(cli("list", "--json").stdout)["networks"]
    assert [(row["name"], row["running"]) for row in rows] == [("home", True), ("w" * 32, False)]
    assert network_id not in json.dumps(rows)
    assert network_id in cli("list", "--network-ids").stdout


def test_list_names_a_damaged_network(cli: Cli, state_dir: Path) -> None:
    cli("create", "home")
    cli("create", "work")
    (state_dir / "networks" / "home" / "network.json").write_text("{")
    result = cli("list")
    assert "networks/home/network.json is damaged" in result.stderr
    assert "work" in result.stdout
    assert cli("join", "home").exit_code == 1
