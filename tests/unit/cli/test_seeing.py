"""The commands that show paths: why, events, ping until direct, graph."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import Result

Cli = Callable[..., Result]
StartNode = Callable[[str], Any]
EVIL = 'x"];\x1b]0;owned\x07<script>]--&#10;\n' + "y" * 50


def fits(text: str) -> bool:
    return max(len(line) for line in text.splitlines()) <= 80


def test_why_a_peer_is_direct(cli: Cli, start_node: StartNode) -> None:
    start_node("home")
    text = cli("why", "laptop").stdout
    assert fits(text)
    for part in ("laptop is reached direct by [2001:db8:", "succeeded", "chosen", "20.5 ms", "attempt 3"):
        assert part in text
    assert "What would help" not in text


def test_why_a_peer_is_relayed_and_what_would_help(
    cli: Cli, start_node: StartNode, fake_daemon: ModuleType
) -> None:
    running = start_node("home")
    running.node.peers.append(fake_daemon.peer("tablet", 4))
    text = cli("why", "tablet").stdout
    assert fits(text)
    for part in (
        "relayed through server",
        "no answer",
        "the two NATs",
        "What would help",
        "port mapping",
        "in vain once",
    ):
        assert part in text
    document = json.loads(cli("why", "tablet", "--json").stdout)
    assert [advice["code"] for advice in document["advice"]] == ["port-mapping"]


def test_why_there_is_no_path(cli: Cli, start_node: StartNode) -> None:
    start_node("home")
    assert "phone is connecting: there is no path." in cli("why", "phone").stdout
    missing = cli("why", "nobody")
    assert missing.exit_code == 3 and missing.stdout == ""


def test_a_name_in_an_explanation_is_not_obeyed(
    cli: Cli, start_node: StartNode, fake_daemon: ModuleType
) -> None:
    running = start_node("home")
    running.node.peers.append(fake_daemon.peer(EVIL, 4))
    text = cli("why", EVIL).stdout
    assert fits(text) and not {"\x1b", "\x07"} & set(text)


def test_events_end_when_not_followed(cli: Cli, start_node: StartNode) -> None:
    running = start_node("home")
    result = cli("events", "--no-follow")
    assert result.exit_code == 0
    assert running.node.asked_events == (20, None, False)
    first, second = result.stdout.splitlines()
    assert first.endswith("start            hello")
    assert "upgraded         laptop is reached directly" in second
    lines = cli("events", "--no-follow", "--last", "1", "--json").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["upgraded"]


def test_events_are_followed_until_interrupted(state_dir: Path, start_node: StartNode) -> None:
    start_node("home")
    command = [sys.executable, "-m", "dhtvpn", "--state-dir", str(state_dir), "events", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        seen = [json.loads(following.stdout.readline())["seq"] for _ in range(2)]
        following.send_signal(2)
        following.wait(10)
        assert following.stderr.read() == ""
    assert seen == [1, 2]
    assert following.returncode == 130


def test_events_of_others_are_not_obeyed(cli: Cli, start_node: StartNode) -> None:
    running = start_node("home")
    running.node.happened = [{**running.node.happened[0], "text": EVIL}]
    assert not {"\x1b", "\x07"} & set(cli("events", "--no-follow").stdout)


def test_ping_says_the_path_of_every_reply_and_when_it_becomes_direct(
    cli: Cli, start_node: StartNode
) -> None:
    running = start_node("home")
    running.node.direct_from = 3
    lines = cli("ping", "laptop", "--count", "4", "--interval", "0.05").stdout.splitlines()
    assert [("relayed through server" in line, "direct by" in line) for line in lines] == [
        (True, False),
        (True, False),
        (False, False),
        (False, True),
        (False, True),
    ]
    assert lines[2] == "laptop: direct now, 1 s after the first ping"


def test_ping_until_direct(cli: Cli, start_node: StartNode) -> None:
    running = start_node("home")
    running.node.direct_from = 3
    words = ("ping", "laptop", "--until-direct", "--interval", "0.05", "--json")
    result = cli(*words)
    assert result.exit_code == 0
    replies = [json.loads(line) for line in result.stdout.splitlines()]
    assert [reply["became_direct"] for reply in replies] == [False, False, True]
    late = cli(*words, "--count", "2")
    assert late.exit_code == 4 and "within 2 pings: 'dhtvpn why laptop'" in late.stderr
    running.node.direct_from = 10_000
    late = cli(*words, "--timeout", "0.12")
    assert late.exit_code == 4 and 2 <= len(late.stdout.splitlines()) <= 4


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        ([], "graph mesh {"),
        (["--format", "mermaid"], "graph LR"),
        (["--format", "svg"], "<svg"),
        (["--json"], "{"),
        (["--format", "json"], "{"),
    ],
)
def test_graph_formats(cli: Cli, start_node: StartNode, words: list[str], beginning: str) -> None:
    start_node("home")
    result = cli("graph", *words)
    assert result.exit_code == 0 and result.stdout.startswith(beginning)


def test_graph_into_a_file_by_its_ending(cli: Cli, start_node: StartNode, tmp_path: Path) -> None:
    start_node("home")
    path = tmp_path / "mesh.svg"
    result = cli("graph", "--output", str(path))
    assert result.exit_code == 0 and result.stdout == ""
    assert path.read_text().startswith("<svg")
    refused = cli("graph", "--output", str(tmp_path / "missing" / "mesh.dot"))
    assert refused.exit_code == 1 and "cannot write" in refused.stderr
    assert cli("graph", "--json", "--format", "dot").exit_code == 2
