"""scripts/sim: it sets up only where that is needed, for setting up takes root and simulating does not."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def sim(place: Path, *, works: bool) -> "subprocess.CompletedProcess[str]":
    """scripts/sim in a checkout of its own, whose scripts/setup refuses, as it does without root."""
    executable(place / "scripts" / "setup", "echo setup >&2; exit 1")
    executable(place / ".venv" / "bin" / "dhtvpn", 'echo "ran $*"' if works else "exit 126")
    shutil.copy(ROOT / "scripts" / "sim", place / "scripts" / "sim")
    command = [place / "scripts" / "sim", "--nodes", "100", "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_the_simulation_runs_without_root_where_setup_was_done(tmp_path: Path) -> None:
    done = sim(tmp_path, works=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ran lab simulate --nodes 100 --json\n"


def test_the_simulation_is_set_up_where_it_does_not_work(tmp_path: Path) -> None:
    done = sim(tmp_path, works=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "setup\n")
