"""Hours that go by in a laboratory: a machine's clocks jump (jumping_clocks/sitecustomize.py)."""

import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dhtvpn.lab import namespaces
from dhtvpn.lab.machine import Machine

_HOOK = Path(__file__).parent / "jumping_clocks"
_OFFSETS = struct.Struct("=ddd")


class Clocks:
    """Of the machines of one laboratory. To be made before any of their processes starts."""

    def __init__(self, machines: list[Machine], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUMPING_CLOCKS", str(directory))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(_HOOK), os.environ.get("PYTHONPATH", "")]))
        self._offsets: dict[str, mmap.mmap] = {}
        for machine in machines:
            inode = Path(f"/run/netns/{machine.namespace}").stat().st_ino
            with (directory / str(inode)).open("w+b") as file:
                file.write(_OFFSETS.pack(0.0, 0.0, 0.0))
                file.flush()
                self._offsets[machine.name] = mmap.mmap(file.fileno(), _OFFSETS.size)

    def jump(self, machine: Machine, *, unix: float = 0.0, monotonic: float = 0.0, boot: float = 0.0) -> None:
        """Move the clocks of ``machine`` on by so many seconds."""
        offsets = self._offsets[machine.name]
        before = _OFFSETS.unpack_from(offsets)
        _OFFSETS.pack_into(offsets, 0, *(a + b for a, b in zip(before, (unix, monotonic, boot), strict=True)))


def sleep(machine: Machine, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
    """All processes of ``machine`` stand still for so long, and until ``meanwhile``, called then, is over."""
    pids = machine.processes()
    for pid in pids:
        namespaces.signal_in(pid, [machine.namespace], signal.SIGSTOP)
    try:
        time.sleep(seconds)
        meanwhile()
    finally:
        for pid in pids:
            namespaces.signal_in(pid, [machine.namespace], signal.SIGCONT)
