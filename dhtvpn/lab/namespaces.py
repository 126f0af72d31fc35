"""Network namespaces: make and remove them, work inside them, find and end what runs in them.

Nothing here changes the machine's own network: links are made with both ends inside namespaces. A
process counts as ours when its ``/proc/PID/ns/net`` is one of our named namespaces, which also finds
daemons that detached themselves.
"""

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dhtvpn.errors import SystemRefusedError

NAMESPACE_DIRECTORY = Path("/run/netns")
"""Where iproute2 keeps its named namespaces (ip-netns(8))."""

NAME = re.compile(r"dvl-([0-9a-f]{4})-(.+)")
"""Every namespace of ours: ``dvl-``, the laboratory's tag, the machine's name."""

COMMAND_TIMEOUT_S = 20.0
"""An ``ip``, ``nft`` or ``sysctl`` call takes milliseconds; one that hangs must not hang us."""

_POLL_S = 0.02
"""How often to look whether processes have ended."""

_CLONE_NEWNET = 0x40000000  # sched.h: setns(2) takes a network namespace only


def search_path() -> str:
    """PATH with the system's own directories, which ``su`` and cron leave out."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])


def check_requirements(tools: Iterable[str] = ("ip", "nft", "sysctl")) -> None:
    """Raises SystemRefusedError with what is missing and how to get it."""
    if os.geteuid() != 0:
        raise SystemRefusedError("the laboratory makes network namespaces: run it as root, with sudo")
    packages = {
        "ip": "iproute2",
        "nft": "nftables",
        "sysctl": "procps",
        "ping": "iputils-ping",
        "iperf3": "iperf3",
    }
    missing = [tool for tool in tools if shutil.which(tool, path=search_path()) is None]
    if missing:
        wanted = " ".join(packages.get(tool, tool) for tool in missing)
        raise SystemRefusedError(
            f"the laboratory needs {', '.join(missing)}: install it with apt install {wanted}"
        )


def command(arguments: Sequence[str], text: str | None = None) -> str:
    """Run a system tool to its end and return its stdout. Raises SystemRefusedError with its complaint."""
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            list(arguments),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=COMMAND_TIMEOUT_S,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SystemRefusedError(f"the laboratory needs the command {arguments[0]}: install it") from error
    except subprocess.TimeoutExpired as error:
        raise SystemRefusedError(f"{' '.join(arguments)} did not end in {COMMAND_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        complaint = " ".join((done.stderr or done.stdout).split())
        raise SystemRefusedError(f"{' '.join(arguments)} failed: {complaint}")
    return done.stdout


def add(namespace: str) -> None:
    """Make a namespace and bring its loopback up."""
    command(["ip", "netns", "add", namespace])
    command(["ip", "-n", namespace, "link", "set", "lo", "up"])


def delete(namespace: str) -> None:
    """Remove a namespace with every interface and rule in it. No error when it is gone already."""
    if exists(namespace):
        command(["ip", "netns", "del", namespace])


def exists(namespace: str) -> bool:
    return (NAMESPACE_DIRECTORY / namespace).exists()


def all_of_ours() -> list[str]:
    """Every namespace with a name of ours, of any laboratory."""
    with suppress(FileNotFoundError):
        return sorted(path.name for path in NAMESPACE_DIRECTORY.iterdir() if NAME.fullmatch(path.name))
    return []


def ip_batch(namespace: str | None, lines: Iterable[str]) -> None:
    """Run many ``ip`` commands in one process, inside ``namespace`` or, with None, from outside."""
    inside = ["-n", namespace] if namespace else []
    command(["ip", *inside, "-batch", "-"], "".join(f"{line}\n" for line in lines))


def sysctl(namespace: str, settings: Mapping[str, str | int]) -> None:
    """Set kernel parameters of one namespace. Those that this kernel does not have are passed over."""
    assignments = [f"{name}={value}" for name, value in settings.items()]
    command(["ip", "netns", "exec", namespace, "sysctl", "-e", "-q", "-w", *assignments])


def load_rules(namespace: str, ruleset: str) -> None:
    """Load nftables rules inside a namespace, all or none."""
    command(["ip", "netns", "exec", namespace, "nft", "-f", "-"], ruleset)


def enter(namespace: str) -> None:
    """Move the calling thread into ``namespace`` (setns(2)); what it opens from now on belongs there.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACE_DIRECTORY / namespace).open("rb") as handle:
        if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def open_socket(namespace: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket of this process that lives in ``namespace``.

    A socket belongs for ever to the namespace that its thread was in when it was made, so a thread
    of its own enters the namespace, makes it, and ends.
    """
    made: list[socket.socket] = []
    failures: list[OSError] = []

    def enter_and_open() -> None:
        try:
            enter(namespace)
            made.append(socket.socket(family, kind, protocol))
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=enter_and_open, name=f"enter {namespace}")
    thread.start()
    thread.join()
    if failures:
        raise SystemRefusedError(f"cannot open a socket in {namespace}: {failures[0]}") from failures[0]
    return made[0]


def processes_in(namespaces: Iterable[str]) -> list[int]:
    """Ids of the processes whose network namespace is one of these; never this process."""
    inodes = set()
    for namespace in namespaces:
        with suppress(OSError):
            inodes.add((NAMESPACE_DIRECTORY / namespace).stat().st_ino)
    if not inodes:
        return []
    own = os.getpid()
    return [pid for pid in _all_processes() if pid != own and _network_inode(pid) in inodes]


def end_processes(namespaces: Sequence[str], patience_s: float = 3.0) -> list[int]:
    """End every process in these namespaces, politely first. Returns the ids it has ended.

    Raises SystemRefusedError when one outlives even SIGKILL.
    """
    ended: set[int] = set()
    asked: set[int] = set()
    deadline = time.monotonic() + patience_s
    while remaining := processes_in(namespaces):
        ended.update(remaining)
        if time.monotonic() > deadline:
            for pid in remaining:
                signal_in(pid, namespaces, signal.SIGKILL)
            wait_until_empty(namespaces)
            break
        for pid in set(remaining) - asked:
            signal_in(pid, namespaces, signal.SIGTERM)
        asked.update(remaining)
        time.sleep(_POLL_S)
    return sorted(ended)


def wait_until_empty(namespaces: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> None:
    """Return when no process is left in these namespaces. Raises SystemRefusedError at the timeout."""
    deadline = time.monotonic() + timeout_s
    while remaining := processes_in(namespaces):
        if time.monotonic() > deadline:
            raise SystemRefusedError(f"processes {remaining} do not end: they may be waiting for a device")
        time.sleep(_POLL_S)


def signal_in(pid: int, namespaces: Iterable[str], number: signal.Signals) -> None:
    """Signal a process if it is (still) in one of these namespaces.

    Through a process descriptor that is checked after it was opened: a process id may be used again
    by a stranger at any moment, a descriptor never is (pidfd_open(2)).
    """
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if is_process_in(pid, namespaces):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def is_process_in(pid: int, namespaces: Iterable[str]) -> bool:
    """Whether that process is in one of the namespaces now."""
    inode = _network_inode(pid)
    for namespace in namespaces:
        with suppress(OSError):
            if (NAMESPACE_DIRECTORY / namespace).stat().st_ino == inode:
                return True
    return False


def _all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _network_inode(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None
