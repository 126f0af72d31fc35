"""The link emulator as a child of the laboratory: started, waited for, and asked for its counters."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from dhtvpn.lab.link import Wire
from dhtvpn.lab.machine import Machine, read_line

START_S = 15.0
END_S = 10.0


@dataclass
class LinkCounters:
    """What emulated links have carried, both ways together. ``late``: more than 5 ms after they were due."""

    carried: int = 0
    carried_bytes: int = 0
    lost: int = 0
    reordered: int = 0
    overflowed: int = 0
    late: int = 0


class LinkProcess:
    """One emulator process with all its links. It runs in a namespace of the laboratory, so that whatever
    removes the laboratory finds it; its devices go with it."""

    def __init__(self, machine: Machine, wires: Sequence[Wire]) -> None:
        """Start it in ``machine``'s namespace and return when every device exists.

        Raises DhtVpnError when it does not start.
        """
        self._machine = machine
        self._child = machine.popen(
            [sys.executable, "-m", "dhtvpn.lab.link"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._child.stdin is not None  # noqa: S101 - it is a pipe, two lines above
        with suppress(BrokenPipeError), self._child.stdin as pipe:
            pipe.write(json.dumps([wire.to_json() for wire in wires]))
        self._child.stdin = None
        read_line(self._child, START_S, "the link emulator")

    def end(self) -> LinkCounters:
        """End it, and with it the devices; returns what it has carried (zeros when it does not say)."""
        self._child.terminate()
        try:
            said, _ = self._child.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            said, _ = self._child.communicate()
        self._machine.reap()
        with suppress(ValueError, TypeError):
            return LinkCounters(**json.loads(said))
        return LinkCounters()
