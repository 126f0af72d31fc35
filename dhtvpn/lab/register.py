"""Which laboratories there are on this machine: one directory each, so that all can be cleaned.

``/run/dhtvpn-lab/TAG/lab.json`` is written before the first namespace is made and goes after the last
one is removed, so whatever a killed run left behind has an entry. The owner is known by process id and
start time, which together are never used twice.
"""

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from dhtvpn import files
from dhtvpn.errors import DhtVpnError, SystemRefusedError

REGISTER = Path("/run/dhtvpn-lab")

_START_TIME_FIELD = 22  # proc(5), /proc/PID/stat: starttime, in clock ticks since boot


@dataclass(frozen=True)
class Entry:
    """One laboratory. ``topology`` is None when its file is damaged."""

    tag: str
    directory: Path
    topology: str | None
    owner: int
    owner_started: int
    kept: bool

    @property
    def prefix(self) -> str:
        """What the names of all its namespaces start with."""
        return f"dvl-{self.tag}-"

    @property
    def running(self) -> bool:
        """Whether the process that built it still lives."""
        return self.owner > 0 and _start_time(self.owner) == self.owner_started

    @property
    def state(self) -> str:
        """``running``, ``kept`` or ``abandoned``."""
        if self.running:
            return "running"
        return "kept" if self.kept else "abandoned"

    @property
    def abandoned(self) -> bool:
        """Whether nobody wants it any more: its owner has died without being asked to keep it."""
        return not self.running and not self.kept


def register(topology: str, register_directory: Path = REGISTER) -> Entry:
    """A new entry, owned by this process, under a tag that no other laboratory has."""
    files.make_directory(register_directory, 0o755)
    for _ in range(1000):
        tag = secrets.token_hex(2)
        directory = register_directory / tag
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise SystemRefusedError(f"cannot make {directory} ({error.strerror})") from error
        entry = Entry(tag, directory, topology, os.getpid(), _start_time(os.getpid()) or 0, kept=False)
        _write(entry)
        return entry
    raise SystemRefusedError(f"{register_directory} is full of laboratories: run dhtvpn lab clean")


def mark_kept(entry: Entry) -> Entry:
    """Note that the laboratory shall outlive its owner."""
    kept = Entry(entry.tag, entry.directory, entry.topology, entry.owner, entry.owner_started, kept=True)
    _write(kept)
    return kept


def remove(entry: Entry) -> None:
    """Forget a laboratory, with the states and logs of its nodes."""
    shutil.rmtree(entry.directory, ignore_errors=True)


def entries(register_directory: Path = REGISTER) -> list[Entry]:
    """Every laboratory that has an entry; a damaged one counts as abandoned."""
    if not register_directory.is_dir():
        return []
    return [_read(path) for path in sorted(register_directory.iterdir()) if path.is_dir()]


def _write(entry: Entry) -> None:
    files.write_json(
        entry.directory / "lab.json",
        {
            "topology": entry.topology,
            "owner": entry.owner,
            "owner_started": entry.owner_started,
            "kept": entry.kept,
        },
    )


def _read(directory: Path) -> Entry:
    unreadable = Entry(directory.name, directory, None, 0, 0, kept=False)
    try:
        content = files.read_json(directory / "lab.json")
    except DhtVpnError:
        return unreadable
    if content is None:
        return unreadable
    topology, owner, started = content.get("topology"), content.get("owner"), content.get("owner_started")
    if not (isinstance(topology, str) and isinstance(owner, int) and isinstance(started, int)):
        return unreadable
    return Entry(directory.name, directory, topology, owner, started, content.get("kept") is True)


def _start_time(pid: int) -> int | None:
    """When a process started, or None when there is no such process."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    fields = content.rpartition(")")[2].split()
    return int(fields[_START_TIME_FIELD - 3])
