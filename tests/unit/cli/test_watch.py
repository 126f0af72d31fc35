"""The live status: rates from counters, and views for every size of a terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from dhtvpn.cli import status
from dhtvpn.cli.throughput import Rate, Throughput
from dhtvpn.cli.watch_view import WatchView

StartNode = Callable[[str], Any]


def document(fake_daemon: ModuleType, *peers: dict[str, Any], uptime_s: float = 100.0) -> dict[str, Any]:
    return {**fake_daemon.FakeNode().status(), "peers": list(peers), "uptime_s": uptime_s}


def rendered(view: WatchView, width: int, height: int | None = None) -> list[str]:
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    options = console.options.update(width=width, height=height)
    lines = console.render_lines(view, options, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def moved(peer: dict[str, Any], received: int, sent: int) -> dict[str, Any]:
    return {**peer, "rx_bytes": peer["rx_bytes"] + received, "tx_bytes": peer["tx_bytes"] + sent}


def test_rates_from_two_readings(fake_daemon: ModuleType) -> None:
    laptop, phone = fake_daemon.peer("laptop", 2), fake_daemon.peer("phone", 3)
    throughput = Throughput()
    assert throughput.update(document(fake_daemon, laptop), 10.0) == {}
    later = document(fake_daemon, moved(laptop, 1000, 500), phone)
    assert throughput.update(later, 12.0) == {laptop["id"]: Rate(500.0, 250.0)}, "the phone is new"


def test_no_rates_over_a_restart(fake_daemon: ModuleType) -> None:
    laptop = fake_daemon.peer("laptop", 2)
    throughput = Throughput()
    throughput.update(document(fake_daemon, laptop), 10.0)
    assert throughput.update(document(fake_daemon, moved(laptop, 9, 9), uptime_s=1.0), 11.0) == {}
    assert throughput.update(document(fake_daemon, moved(laptop, -5, 9), uptime_s=2.0), 12.0) == {}


@pytest.mark.parametrize(
    ("width", "shown", "hidden"),
    [
        (120, ["DOWN", "UP", "RTT", "IPV4", "FOUND BY", "kademlia"], []),
        (80, ["DOWN", "UP", "RTT"], ["IPV4", "FOUND BY"]),
        (44, ["DOWN", "UP"], ["RTT", "IPV4"]),
    ],
)
def test_what_fits(fake_daemon: ModuleType, width: int, shown: list[str], hidden: list[str]) -> None:
    laptop, phone = fake_daemon.peer("laptop", 2), fake_daemon.peer("phone", 3, "connecting")
    relayed = {**laptop, "name": "tablet", "id": "t", "path": "relayed", "endpoint": None}
    by_member = {**relayed, "relay": {"kind": "member", "members": ["server"]}}
    by_volunteer = {**relayed, "name": "old", "relay": {"kind": "volunteer", "endpoint": "192.0.2.1:1"}}
    rates = {laptop["id"]: Rate(1500.0, 20_000_000.0)}
    view = WatchView(document(fake_daemon, laptop, phone, by_member, by_volunteer), rates)
    lines = rendered(view, width)
    text = "\n".join(lines)
    for part in ("direct", "connecting", "via server", "via volunteer", "1.5 kB", "20.0 MB", *shown):
        assert part in text
    assert not [part for part in hidden if part in text]
    assert max(map(len, lines)) <= width
    assert "3 of 4 connected, 1 directly" in text


def test_a_low_terminal_shows_the_busy_ones(fake_daemon: ModuleType) -> None:
    peers = [fake_daemon.peer(f"peer{number:02d}", number) for number in range(1, 41)]
    rates = {peers[29]["id"]: Rate(5000.0, 0.0)}
    lines = rendered(WatchView(document(fake_daemon, *peers), rates), 80, 12)
    assert len(lines) <= 12
    assert any(line.startswith("peer30") for line in lines) and "and 34 more" in lines[-1]


def test_nobody_and_hostile_names(fake_daemon: ModuleType) -> None:
    assert "No other member" in "\n".join(rendered(WatchView(document(fake_daemon), {}), 80))
    evil = fake_daemon.peer("x\x1b]0;owned\x07[red]" + "y" * 90, 4)
    lines = rendered(WatchView(document(fake_daemon, evil), {}), 60)
    assert max(map(len, lines)) <= 60 and not {"\x1b", "\x07"} & set("".join(lines))


def test_on_a_terminal_it_leaves_the_screen_as_it_was(state_dir: Path, start_node: StartNode) -> None:
    start_node("home")
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "dhtvpn", "--state-dir", str(state_dir), "status", "--watch"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "50", "LINES": "20"}
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ) as watching:
        os.close(terminal)
        seen = read_until(ours, b"laptop")
        watching.send_signal(2)
        seen += read_until(ours, b"\x1b[?1049l")
        assert watching.wait(10) == 130
    os.close(ours)
    assert seen.count(b"\x1b[?1049h") == 1 and b"\x1b[?25h" in seen and b"Traceback" not in seen


def read_until(descriptor: int, wanted: bytes) -> bytes:
    """What the terminal got, until ``wanted`` was in it."""
    seen, deadline = b"", time.monotonic() + 10
    while wanted not in seen:
        assert select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0], seen
        seen += os.read(descriptor, 65536)
    return seen


class Interrupted(WatchView):
    """Somebody presses Ctrl-C while it is drawn for the first time."""

    def __rich_console__(self, *_: Any) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_during_the_first_view_gives_the_screen_back(
    monkeypatch: pytest.MonkeyPatch, fake_daemon: ModuleType
) -> None:
    written = StringIO()
    console = Console(file=written, force_terminal=True, width=60, height=20)
    monkeypatch.setattr("dhtvpn.cli.output.console", lambda: console)
    monkeypatch.setattr("dhtvpn.cli.watch_view.WatchView", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        status._watch_screen(fake_daemon.FakeNode())
    assert written.getvalue().count("\x1b[?1049l") == written.getvalue().count("\x1b[?1049h") == 1
