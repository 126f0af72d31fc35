"""``join --detach`` and ``leave``, with real processes and a made-up node."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dhtvpn.cli import detach
from dhtvpn.errors import TimedOutError
from dhtvpn.system.privileges import has_net_admin

pytestmark = pytest.mark.skipif(
    not has_net_admin() or not Path("/dev/net/tun").exists(), reason="join checks for root and a TUN device"
)
ASIDE = ["--name", "desk", "--port", "4002"]


def dhtvpn(environment: dict[str, str], *words: str, **extra: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dhtvpn", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False, **extra
    )


def test_from_detach_to_leave(injected: dict[str, str], state_dir: Path) -> None:
    network_id = dhtvpn(injected, "create", "home").stdout.strip()
    joined = dhtvpn(injected, "join", network_id, *ASIDE, "--detach", "--json")
    assert joined.returncode == 0, joined.stderr
    told = json.loads(joined.stdout)
    process_id = told["pid"]
    try:
        command_line = Path(f"/proc/{process_id}/cmdline").read_bytes().decode().split("\0")
        assert network_id not in command_line
        assert command_line[-3:-1] == ["join", "home"]
        assert os.getsid(process_id) == process_id
        assert Path(f"/proc/{process_id}/fd/0").readlink() == Path("/dev/null")
        log = Path(told["log"])
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert "starting as desk on port 4002" in log.read_text()
        assert network_id not in log.read_text()
        assert json.loads(dhtvpn(injected, "status", "--json").stdout)["node"]["name"] == "desk"
        again = dhtvpn(injected, "join", "home", "--detach")
        assert again.returncode == 1
        assert f"already in home (pid {process_id})" in again.stderr
    finally:
        left = dhtvpn(injected, "leave")
    assert left.returncode == 0, left.stderr
    assert "left home" in left.stdout
    assert list((state_dir / "run").iterdir()) == []
    assert dhtvpn(injected, "leave").returncode == 3


@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        ("SystemRefusedError", 1, "dhtvpn: the fake refuses: do nothing\n"),
        ("UsageError", 2, "dhtvpn: the fake refuses: do nothing\n"),
        ("TimedOutError", 4, "dhtvpn: the fake refuses: do nothing\n"),
        ("exit", 1, "stopped before it was ready (exit code 7): its log is"),
    ],
)
def test_a_failed_start_tells_its_sentence_and_code(
    injected: dict[str, str], state_dir: Path, failure: str, code: int, sentence: str
) -> None:
    dhtvpn(injected, "create", "home")
    failed = dhtvpn({**injected, "FAKE_FAILURE": failure}, "join", "home", *ASIDE, "--detach")
    assert failed.returncode == code
    assert sentence in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert "starting as desk" in failed.stdout


def test_a_start_that_hangs_is_ended(
    injected: dict[str, str], state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dhtvpn(injected, "create", "home")
    for name, value in {**injected, "FAKE_FAILURE": "hang"}.items():
        monkeypatch.setenv(name, value)
    log = state_dir / "networks" / "home" / "node.log"
    said: list[str] = []
    with pytest.raises(TimedOutError, match="not ready after"):
        detach.start(["join", "home", *ASIDE], log, lambda kind, text: said.append(text), timeout_s=3.0)
    assert said == ["starting as desk on port 4002"]
    assert list(state_dir.glob("run/*")) == []


def test_ctrl_c_in_the_foreground_leaves_nothing(injected: dict[str, str], state_dir: Path) -> None:
    dhtvpn(injected, "create", "home")
    command = [sys.executable, "-m", "dhtvpn", "join", "home", *ASIDE]
    with subprocess.Popen(
        command, env=injected, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        assert node.stderr is not None
        assert "starting as desk" in node.stdout.readline()
        assert node.stdout.readline() == "answering\n"
        assert dhtvpn(injected, "wait", "--timeout", "5").stdout == "connected: laptop\n"
        node.send_signal(2)
        assert node.wait(10) == 0
        assert node.stderr.read() == ""
    assert list((state_dir / "run").iterdir()) == []
