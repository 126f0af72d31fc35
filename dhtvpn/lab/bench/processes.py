"""What processes cost: CPU time and memory, read from /proc (proc(5))."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ ([0-9a-f]+) (\S+) (\d+)\s*(.*)")


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time, user and system, that these processes have used so far; one that has gone counts nothing.

    From each thread's schedstat, which counts nanoseconds; where the kernel has none, from stat's ticks.
    """
    return sum(_cpu_seconds(pid) for pid in pids)


def _cpu_seconds(pid: int) -> float:
    total = 0.0
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                total += int((thread / "schedstat").read_text().split()[0]) / 1e9
    if total == 0.0:
        with suppress(OSError):
            total = parse_stat_cpu(Path(f"/proc/{pid}/stat").read_text())
    return total


def parse_stat_cpu(text: str) -> float:
    """utime and stime of a /proc/PID/stat, in seconds."""
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@dataclass(frozen=True)
class MachineTime:
    """CPU seconds of the whole machine since it started."""

    busy_s: float
    softirq_s: float

    def since(self, before: "MachineTime") -> "MachineTime":
        return MachineTime(self.busy_s - before.busy_s, self.softirq_s - before.softirq_s)


def machine_time() -> MachineTime:
    return parse_machine_time(Path("/proc/stat").read_text())


def parse_machine_time(text: str) -> MachineTime:
    """The first line of /proc/stat: user nice system idle iowait irq softirq steal guest guest_nice.

    Steal is another machine's work; guest is counted in user already.
    """
    user, nice, system, _, _, irq, softirq = (int(word) / _TICKS_PER_S for word in text.split()[1:8])
    return MachineTime(user + nice + system + irq + softirq, softirq)


@dataclass
class Memory:
    """Bytes of a group of processes."""

    own: int = 0
    """Pages that one process alone has."""
    shared: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """Pages that several processes have, by device, inode and offset of the file; the most of any process."""
    rss: int = 0

    @property
    def total(self) -> int:
        """What the group would take alone on a machine: shared pages counted once."""
        return self.own + sum(self.shared.values())


def memory(pids: Iterable[int]) -> Memory:
    """The memory of a group of processes now. Needs root for those of others."""
    found = Memory()
    for pid in pids:
        with suppress(OSError):
            add_smaps(found, Path(f"/proc/{pid}/smaps").read_text())
    return found


def proportional(pids: Iterable[int]) -> int:
    """Bytes that a group of processes takes beside all others of this machine (PSS): a page that several have
    is divided among them. Needs root for processes of others."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += parse_proportional(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return total


def parse_proportional(text: str) -> int:
    """Pss of a /proc/PID/smaps_rollup, in bytes."""
    return sum(_kilobytes(line.partition(":")[2]) for line in text.splitlines() if line.startswith("Pss:"))


def add_smaps(found: Memory, text: str) -> None:
    """Add one process's /proc/PID/smaps."""
    key = ("", "", "")
    shared: dict[tuple[str, str, str], int] = {}
    for line in text.splitlines():
        mapping = _MAPPING.match(line)
        if mapping is not None:
            key = (mapping[2], mapping[3], mapping[1])
            continue
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty", "Private_Hugetlb"):
            found.own += _kilobytes(rest)
        elif name in ("Shared_Clean", "Shared_Dirty"):
            shared[key] = shared.get(key, 0) + _kilobytes(rest)
        elif name == "Rss":
            found.rss += _kilobytes(rest)
    for mapped, size in shared.items():
        found.shared[mapped] = max(size, found.shared.get(mapped, 0))


def _kilobytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) * 1024
