"""What a tunnel is to the bench: it is started between two namespaces, and then has an address at each end.

Each tunnel has a pair of namespaces of its own and stays up, idle while others are measured. Whatever it
starts runs inside the namespaces, so that the end of the laboratory ends it; a tunnel that makes something
outside them has a ``down``.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dhtvpn import files
from dhtvpn.errors import TimedOutError
from dhtvpn.lab import measure, namespaces
from dhtvpn.lab.bench.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Pair
from dhtvpn.lab.machine import Machine

START_TIMEOUT_S = 30.0
"""How long a tunnel may take from its start to the first echo reply."""

POLL_S = 0.05

OVERLAY_LEFT, OVERLAY_RIGHT = "10.88.0.1", "10.88.0.2"
OVERLAY_PREFIX = 24
"""The overlay of every tunnel that does not choose its own."""

INNER_MTU = 1420
"""The MTU of a tunnel's device, unless its program needs a smaller one to stay under 1500 outside."""


@dataclass(frozen=True)
class Ends:
    """Where a tunnel's two ends are reached through the tunnel."""

    left: str
    right: str


OWN_ENDS = Ends(OVERLAY_LEFT, OVERLAY_RIGHT)


class Tunnel:
    """One program, or dhtvpn in one configuration. Subclasses say how it starts."""

    name: str
    title: str
    """For the table, at most 18 characters."""
    programs: tuple[str, ...] = ()
    """What must be on PATH."""

    def missing(self) -> list[str]:
        """The programs that are not installed."""
        return [tool for tool in self.programs if shutil.which(tool, path=namespaces.search_path()) is None]

    def start(self, pair: Pair) -> None:
        """Start everything, without waiting for a connection. Raises DhtVpnError."""
        raise NotImplementedError

    def finish(self, pair: Pair) -> Ends:
        """Wait until the tunnel can carry packets. Raises DhtVpnError."""
        return OWN_ENDS

    def down(self, pair: Pair) -> None:
        """Remove what is not in the namespaces."""

    def connect(self, pair: Pair) -> Ends:
        """``finish``, and then wait for an echo reply each way. Raises DhtVpnError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        ends = self.finish(pair)
        for machine, address in ((pair.left, ends.right), (pair.right, ends.left)):
            while not measure.answers(machine, address, patience_s=1):
                if time.monotonic() > deadline:
                    raise TimedOutError(f"{self.name}: no echo reply from {address}")
                time.sleep(POLL_S)
        return ends


class NoTunnel(Tunnel):
    """The wire itself."""

    name = "none"
    title = "no tunnel"

    def start(self, pair: Pair) -> None:
        """There is nothing to start."""

    def finish(self, pair: Pair) -> Ends:
        return Ends(str(LEFT_ADDRESS), str(RIGHT_ADDRESS))


def write(machine: Machine, name: str, content: str, mode: int = 0o600) -> Path:
    """A configuration file in the machine's own directory, which goes with the laboratory."""
    path = machine.directory / name
    files.make_directory(path.parent)
    files.write_atomic(path, content.encode(), mode)
    return path


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Raises TimedOutError with ``what`` when the condition does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimedOutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(POLL_S)


def set_up_device(machine: Machine, device: str, address: str, mtu: int) -> None:
    """Give a tunnel's device its address as soon as the device is there. Raises DhtVpnError."""
    wait_until(lambda: device in machine.interfaces(), f"{machine.name} has a device {device}")
    machine.run(["ip", "link", "set", device, "mtu", str(mtu), "up"])
    machine.run(["ip", "address", "replace", f"{address}/{OVERLAY_PREFIX}", "dev", device])
