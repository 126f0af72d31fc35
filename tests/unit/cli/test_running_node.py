"""The commands that ask a running node."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import Result

from dhtvpn.cli import output

Cli = Callable[..., Result]
StartNode = Callable[[str], Any]
ASKING = [
    ["status"],
    ["peers"],
    ["ping", "laptop"],
    ["why", "laptop"],
    ["events"],
    ["graph"],
    ["wait"],
    ["leave"],
    ["stock-peer", "list"],
]
KEY = "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2U="


def fits(text: str) -> bool:
    return max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_not_running_is_3(cli: Cli, words: list[str]) -> None:
    assert cli(*words).exit_code == 3
    cli("create", "home")
    result = cli(*words)
    assert result.exit_code == 3
    assert "(home)" in result.stderr
    assert cli(*words, "--network", "home").exit_code == 3
    assert "no network 'work'" in cli(*words, "--network", "work").stderr


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_several_running_need_a_name(cli: Cli, start_node: StartNode, words: list[str]) -> None:
    start_node("home")
    start_node("work")
    result = cli(*words)
    assert result.exit_code == 2
    assert "(home, work)" in result.stderr
    assert "--network NAME" in result.stderr


def test_one_of_several(cli: Cli, start_node: StartNode) -> None:
    start_node("home")
    start_node("work")
    assert json.loads(cli("status", "--network", "work", "--json").stdout)["network"]["name"] == "work"
    assert json.loads(cli("--network", "home", "status", "--json").stdout)["network"]["name"] == "home"


def test_status(cli: Cli, start_node: StartNode) -> None:
    running = start_node("home")
    assert json.loads(cli("status", "--json").stdout) == running.node.status()
    text = cli("status").stdout
    assert fits(text)
    for part in (
        "home",
        "10.77.0.1",
        "dhtvpn0",
        "endpoint-independent",
        "laptop",
        "connected",
        "123 ms",
        "udp_gro",
    ):
        assert part in text


def test_a_long_listing_fits_and_nothing_is_obeyed(
    cli: Cli, start_node: StartNode, fake_daemon: ModuleType
) -> None:
    running = start_node("home")
    evil = fake_daemon.peer("x\x1b]0;owned\x07\x1b[31m\r\n" + "y" * 50, 254)
    evil["ipv4"] = "10.255.255.254"
    running.node.peers = [evil, fake_daemon.peer("[red]markup", 4, "unreachable")]
    for command in ("status", "peers"):
        text = cli(command).stdout
        assert fits(text)
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "[red]markup" in cli("peers").stdout


def test_peers(cli: Cli, start_node: StartNode) -> None:
    running = start_node("home")
    assert json.loads(cli("peers", "--json").stdout) == {"peers": running.node.peers}
    text = cli("peers").stdout
    assert fits(text)
    assert "direct by [2001:db8:" in text
    running.node.peers = []
    assert "No other member" in cli("peers").stdout
    assert "No other member" in cli("status").stdout


def test_ping(cli: Cli, start_node: StartNode) -> None:
    start_node("home")
    result = cli("ping", "laptop", "--count", "2", "--interval", "0.05")
    assert result.exit_code == 0
    assert [line.split(",")[1] for line in result.stdout.splitlines()] == [" 1.2 ms", " 2.5 ms"]
    assert "direct by" in result.stdout
    lines = cli("ping", "laptop", "--count", "2", "--interval", "0.05", "--json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2]


def test_ping_without_reply_is_4_and_of_nobody_3(cli: Cli, start_node: StartNode) -> None:
    start_node("home")
    lost = cli("ping", "phone", "--count", "1")
    assert lost.exit_code == 4
    assert "no reply from 'phone' to 1 ping:" in lost.stderr
    assert "no reply" in lost.stdout
    assert cli("ping", "nobody").exit_code == 3


def test_wait(cli: Cli, start_node: StartNode) -> None:
    start_node("home")
    assert cli("wait").stdout == "connected: laptop\n"
    found = json.loads(cli("wait", "--peer", "laptop", "--json").stdout)
    assert [peer["name"] for peer in found["peers"]] == ["laptop"]
    late = cli("wait", "--peers", "2", "--timeout", "0.05")
    assert late.exit_code == 4
    assert "1 of 2 peers" in late.stderr


def test_stock_peer(cli: Cli, start_node: StartNode) -> None:
    start_node("home")
    assert "No stock peer" in cli("stock-peer", "list").stdout
    added = cli("stock-peer", "add", "phone", "--public-key", KEY)
    assert added.exit_code == 0
    settings = dict(line.split(" = ", 1) for line in added.stdout.splitlines() if " = " in line)
    assert settings["Address"] == "10.77.0.9/32, fd77:1234:5678:9abc::9/128"
    assert settings["AllowedIPs"] == "10.77.0.1/32, fd77:1234:5678:9abc::1/128"
    assert settings["Endpoint"] == "192.0.2.7:51820"
    assert settings["PresharedKey"].startswith("cHNr")
    assert "secret" in added.stderr
    assert fits(cli("stock-peer", "list").stdout)
    assert json.loads(cli("stock-peer", "list", "--json").stdout)["stock_peers"][0]["public_key"] == KEY
    assert cli("stock-peer", "add", "phone", "--public-key", KEY).exit_code == 2
    assert cli("stock-peer", "remove", "phone").stdout == "removed phone\n"
    assert cli("stock-peer", "remove", "phone").exit_code == 3


@pytest.mark.parametrize("extra", [[], ["--json"]], ids=["views", "json"])
def test_watch_goes_on_until_the_node_stops(state_dir: Path, start_node: StartNode, extra: list[str]) -> None:
    start_node("home")
    command = [sys.executable, "-m", "dhtvpn", "--state-dir", str(state_dir), "status", "--watch", *extra]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        seen = [watching.stdout.readline() for _ in range(2)]
        watching.terminate() if extra else watching.send_signal(2)
        watching.wait(10)
        assert watching.stderr.read() == ""
    if extra:
        assert [json.loads(line)["network"]["name"] for line in seen] == ["home", "home"]
    else:
        assert watching.returncode == 130


def test_plain_replaces_what_a_terminal_obeys() -> None:
    assert output.plain("a\x1b[2Jb\u202ec") == "a?[2Jb?c"
