"""One machine of the laboratory: run commands, open sockets and drive dhtvpn in its namespace."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import IO, Any, Literal

from dhtvpn import files
from dhtvpn.errors import DhtVpnError, SystemRefusedError, TimedOutError
from dhtvpn.lab import namespaces
from dhtvpn.lab.addressing import Link

RUN_TIMEOUT_S = 60.0
"""How long a command may take unless the caller says otherwise."""


class Machine:
    """A host or router that is up. ``ipv4`` and ``ipv6`` are its underlay addresses, where it has them."""

    def __init__(self, name: str, namespace: str, link: Link | None, directory: Path) -> None:
        self.name = name
        self.namespace = namespace
        self.link = link
        self.directory = directory
        self._children: list[subprocess.Popen[str]] = []

    def __repr__(self) -> str:
        return f"Machine({self.name}, {self.namespace})"

    @property
    def ipv4(self) -> IPv4Address | None:
        return self.link.ipv4.ip if self.link and self.link.ipv4 else None

    @property
    def ipv6(self) -> IPv6Address | None:
        return self.link.ipv6.ip if self.link and self.link.ipv6 else None

    @property
    def state_dir(self) -> Path:
        """Where the dhtvpn node of this machine keeps its state."""
        return self.directory / "state"

    @property
    def enter(self) -> list[str]:
        """The words before a command that make it run here."""
        return ["ip", "netns", "exec", self.namespace]

    def run(
        self,
        arguments: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = RUN_TIMEOUT_S,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end, with stdout and stderr as text.

        Raises DhtVpnError when it fails and ``check`` is set, TimedOutError after ``timeout_s``.
        """
        try:
            done = subprocess.run(
                [*self.enter, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
                env=self._environment(),
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise TimedOutError(
                f"{self.name}: {_brief(arguments)} did not end in {timeout_s:.0f} s"
            ) from error
        if check and done.returncode != 0:
            complaint = (done.stderr or done.stdout).strip()
            raise DhtVpnError(f"{self.name}: {_brief(arguments)} failed ({done.returncode}): {complaint}")
        return done

    def popen(
        self,
        arguments: Sequence[str],
        *,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Start a command here and leave it running; it ends with the laboratory at the latest.

        It has a session of its own, so that a Ctrl-C at the terminal reaches only us.
        """
        child = subprocess.Popen(
            [*self.enter, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=self._environment(),
            start_new_session=True,
        )
        self._children.append(child)
        return child

    def daemon(self, arguments: Sequence[str], log_name: str) -> subprocess.Popen[str]:
        """Start a command here whose output goes to a file of the laboratory's directory."""
        with self.log_file(log_name).open("a") as log:
            return self.popen(arguments, stdout=log, stderr=subprocess.STDOUT)

    def log_file(self, name: str) -> Path:
        """Where ``daemon`` writes; the directory exists after the call."""
        files.make_directory(self.directory)
        return self.directory / f"{name}.log"

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A socket of this process in this machine's namespace; the caller closes it."""
        return namespaces.open_socket(self.namespace, family, kind)

    def dhtvpn(self, *arguments: str) -> list[str]:
        """The command line of dhtvpn with this machine's own state."""
        return [sys.executable, "-m", "dhtvpn", "--state-dir", str(self.state_dir), *arguments]

    def cli(
        self, *arguments: str, check: bool = True, timeout_s: float = RUN_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run ``dhtvpn ARGUMENTS`` here to its end."""
        return self.run(self.dhtvpn(*arguments), check=check, timeout_s=timeout_s)

    def cli_json(self, *arguments: str, timeout_s: float = RUN_TIMEOUT_S) -> dict[str, Any]:
        """Run ``dhtvpn ARGUMENTS --json`` here and return the object that it prints."""
        done = self.cli(*arguments, "--json", timeout_s=timeout_s)
        try:
            value = json.loads(done.stdout)
        except ValueError as error:
            raise DhtVpnError(f"{self.name}: dhtvpn {_brief(arguments)} --json printed no JSON") from error
        if not isinstance(value, dict):
            raise DhtVpnError(f"{self.name}: dhtvpn {_brief(arguments)} --json printed no object")
        return value

    def processes(self) -> list[int]:
        """Ids of everything that runs here, detached daemons included."""
        return namespaces.processes_in([self.namespace])

    def kill_all(self) -> list[int]:
        """``kill -9`` for everything that runs here, as a power cut would. Returns the ids."""
        # A child that we have only just started may not have entered the namespace yet.
        pids = sorted({*self.processes(), *self._signal_children(signal.SIGKILL)})
        for pid in pids:
            namespaces.signal_in(pid, [self.namespace], signal.SIGKILL)
        namespaces.wait_until_empty([self.namespace])
        self.reap()
        return pids

    def interfaces(self) -> list[str]:
        """Names of the network interfaces here, as ``ip link`` shows them."""
        links = json.loads(self.run(["ip", "-json", "link", "show"]).stdout)
        return [str(link["ifname"]) for link in links]

    def bound_ports(self, protocol: Literal["udp", "tcp"]) -> set[int]:
        """Local ports in use here, over IPv4 or IPv6 (/proc/net/udp, udp6, tcp, tcp6)."""
        tables = [f"/proc/self/net/{protocol}", f"/proc/self/net/{protocol}6"]
        ports = set()
        for line in self.run(["cat", *tables], check=False).stdout.splitlines():
            fields = line.split()
            if len(fields) > 1 and ":" in fields[1]:
                ports.add(int(fields[1].rpartition(":")[2], 16))
        return ports

    def wait_for_port(
        self, protocol: Literal["udp", "tcp"], port: int, child: subprocess.Popen[str], timeout_s: float
    ) -> None:
        """Return when ``port`` is bound. Raises DhtVpnError when ``child``, which shall bind it, has
        ended, TimedOutError after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while port not in self.bound_ports(protocol):
            if child.poll() is not None:
                raise DhtVpnError(f"{self.name}: the command for port {port} ended ({child.returncode})")
            if time.monotonic() > deadline:
                raise TimedOutError(f"{self.name}: nothing bound {protocol} port {port} in {timeout_s:.0f} s")
            time.sleep(0.03)

    def reap(self) -> None:
        """Collect children that have ended, so that none stays behind as a zombie."""
        for child in self._children:
            if child.poll() is not None:
                _close_pipes(child)
        self._children = [child for child in self._children if child.returncode is None]

    def terminate_children(self) -> None:
        """SIGTERM for every child that still runs. Needed beside looking through the namespace: one that
        was started a moment ago is still on its way into it, and would be missed."""
        self._signal_children(signal.SIGTERM)

    def collect_children(self) -> None:
        """Kill every child that still runs, and collect all. Raises SystemRefusedError when one stays."""
        self._signal_children(signal.SIGKILL)
        for child in self._children:
            try:
                child.wait(timeout=namespaces.COMMAND_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise SystemRefusedError(f"{self.name}: process {child.pid} cannot be ended") from error
            _close_pipes(child)
        self._children.clear()

    def _signal_children(self, number: signal.Signals) -> list[int]:
        running = [child for child in self._children if child.poll() is None]
        for child in running:
            child.send_signal(number)
        return [child.pid for child in running]

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DHTVPN_")}
        environment["PATH"] = namespaces.search_path()
        environment["LC_ALL"] = "C.UTF-8"
        return environment


def read_line(child: subprocess.Popen[str], timeout_s: float, what: str) -> str:
    """One line of a child's stdout, which must be a pipe that nothing else has read from.

    Raises TimedOutError, or DhtVpnError when the child ends instead.
    """
    assert child.stdout is not None  # noqa: S101 - the caller opened the pipe
    ready, _, _ = select.select([child.stdout], [], [], timeout_s)
    if not ready:
        raise TimedOutError(f"{what} said nothing in {timeout_s:.0f} s")
    line = child.stdout.readline().strip()
    if not line:
        complaint = child.stderr.read().strip() if child.stderr is not None else ""
        raise DhtVpnError(f"{what} ended: {complaint[-500:]}")
    return line


def _brief(arguments: Sequence[str]) -> str:
    """A command for a sentence, short enough to read."""
    words = " ".join(arguments)
    return words if len(words) <= 120 else f"{words[:117]}..."


def _close_pipes(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
