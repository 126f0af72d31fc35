"""Tunnels that the bench does not know: up and down commands of the user's.

The environment variable DHTVPN_BENCH_TUNNELS names a JSON file, or is such a document itself (it starts
with "{"): an object whose keys are names and whose values are objects with ``up``, a shell command, and
optionally ``down``, another one, and ``programs``, a list of what must be on PATH::

    {"mine": {"up": "/root/mine-up.sh", "down": "/root/mine-down.sh", "programs": ["mined"]}}

``up`` leaves the tunnel up and returns; ``down`` is called at the end. Both are told in environment
variables what to join and which addresses to use (``environment_of``). Processes that run inside the
namespaces are ended with them, and are those whose CPU time and memory are counted.
"""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhtvpn.errors import DhtVpnError, TimedOutError, UsageError
from dhtvpn.lab import namespaces
from dhtvpn.lab.bench.pair import LEFT_ADDRESS, RIGHT_ADDRESS, UNDERLAY_PREFIX, Pair
from dhtvpn.lab.bench.tunnels import (
    OVERLAY_LEFT,
    OVERLAY_PREFIX,
    OVERLAY_RIGHT,
    START_TIMEOUT_S,
    Tunnel,
)

VARIABLE = "DHTVPN_BENCH_TUNNELS"
MAX_EXTRA = 16
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,17}")


class ExtraTunnel(Tunnel):
    """A tunnel by the user's own commands."""

    def __init__(self, name: str, up: str, down: str | None, programs: Sequence[str]) -> None:
        self.name = self.title = name
        self.programs = tuple(programs)
        self.up_command = up
        self.down_command = down

    def start(self, pair: Pair) -> None:
        for machine in pair.machines:
            machine.log_file(self.name)  # its directory is there for the commands to use
        self._run(self.up_command, pair)

    def down(self, pair: Pair) -> None:
        if self.down_command is not None:
            self._run(self.down_command, pair)

    def _run(self, command: str, pair: Pair) -> None:
        log = pair.left.log_file(self.name)
        environment = {**os.environ, "PATH": namespaces.search_path(), **environment_of(pair)}
        # Output goes to a file: a daemon that keeps it open must not keep us waiting for its end.
        with log.open("a") as output:
            try:
                done = subprocess.run(
                    ["sh", "-c", command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=False,
                    timeout=START_TIMEOUT_S,
                    env=environment,
                    start_new_session=True,
                )
            except subprocess.TimeoutExpired as error:
                raise TimedOutError(f"{self.name}: {command} did not end") from error
        if done.returncode != 0:
            said = " ".join(log.read_text(errors="replace").split())[-300:]
            raise DhtVpnError(f"{self.name}: {command} failed ({done.returncode}): {said}")


def environment_of(pair: Pair) -> dict[str, str]:
    """What the commands are told."""
    return {
        "BENCH_LEFT_NAMESPACE": pair.left.namespace,
        "BENCH_RIGHT_NAMESPACE": pair.right.namespace,
        "BENCH_LEFT_UNDERLAY": str(LEFT_ADDRESS),
        "BENCH_RIGHT_UNDERLAY": str(RIGHT_ADDRESS),
        "BENCH_UNDERLAY_PREFIX": str(UNDERLAY_PREFIX),
        "BENCH_LEFT_OVERLAY": OVERLAY_LEFT,
        "BENCH_RIGHT_OVERLAY": OVERLAY_RIGHT,
        "BENCH_OVERLAY_PREFIX": str(OVERLAY_PREFIX),
        "BENCH_LEFT_DIRECTORY": str(pair.left.directory),
        "BENCH_RIGHT_DIRECTORY": str(pair.right.directory),
    }


def from_environment(taken: Sequence[str]) -> list[ExtraTunnel]:
    """The tunnels that DHTVPN_BENCH_TUNNELS names. Raises UsageError."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return []
    if not text.startswith("{"):
        try:
            text = Path(text).read_text()
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"{VARIABLE} names {text!r}, which cannot be read") from None
    return parse(text, taken)


def parse(text: str, taken: Sequence[str]) -> list[ExtraTunnel]:
    """The tunnels of a JSON document. Raises UsageError with the rule that it breaks."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{VARIABLE} is no JSON: {error}") from None
    if not isinstance(document, dict) or len(document) > MAX_EXTRA:
        raise UsageError(f"{VARIABLE} must be an object with at most {MAX_EXTRA} tunnels")
    for name in document:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{VARIABLE}: {name!r} is no name: use 1 to 18 of a-z, 0-9 and -")
        if name in taken:
            raise UsageError(f"{VARIABLE}: the bench has a tunnel {name} already")
    return [_one(name, content) for name, content in document.items()]


def _one(name: str, content: Any) -> ExtraTunnel:
    if not isinstance(content, dict) or not isinstance(content.get("up"), str):
        raise UsageError(f"{VARIABLE}: {name} needs an object with the command 'up'")
    unknown = sorted(set(content) - {"up", "down", "programs"})
    if unknown:
        raise UsageError(f"{VARIABLE}: {name} has {unknown[0]!r}; up, down and programs are known")
    down, programs = content.get("down"), content.get("programs", [])
    if down is not None and not isinstance(down, str):
        raise UsageError(f"{VARIABLE}: {name}: 'down' must be a command")
    if not isinstance(programs, list) or not all(isinstance(program, str) for program in programs):
        raise UsageError(f"{VARIABLE}: {name}: 'programs' must be a list of names")
    return ExtraTunnel(name, content["up"], down, programs)
