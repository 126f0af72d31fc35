"""Run members in a network that is up, and measure every pair.

Members join one after the other. The first is given time to publish itself; every later one is timed
from the start of its ``join`` command to the first echo reply, through the tunnel, from each member
that was there before.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab import measure
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import ExpectedPath, Host

Progress = Callable[[str], None]

SETTLE_TIMEOUT_S = 10.0
"""How long the first member may take to publish its record."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, and how long throughput is measured (0: not at all)."""

    first_reply_s: float = 20.0
    first_reply_unexpected_s: float = 6.0
    """For a pair that no direct path can join."""
    throughput_s: int = 3


@dataclass(frozen=True)
class Address:
    """A member's overlay addresses, as its own status gives them."""

    ipv4: str
    ipv6: str


@dataclass(frozen=True)
class PairResult:
    """One pair in one run; ``one`` was there when ``other`` joined. None means: did not work."""

    one: str
    other: str
    nat_one: str
    nat_other: str
    expected: ExpectedPath
    first_reply_s: float | None = None
    path: str | None = None
    ipv6: bool = False
    rtt_ms: float | None = None
    tcp_mbit_s: float | None = None

    @property
    def connected(self) -> bool:
        """Both overlay addresses answer."""
        return self.first_reply_s is not None and self.ipv6

    @property
    def as_expected(self) -> bool:
        """Connected, unless no direct path can exist."""
        return self.connected or self.expected is not ExpectedPath.DIRECT


class Experiment:
    """One run over one network. ``run`` may be called once."""

    def __init__(self, network: Network, limits: Limits, progress: Progress) -> None:
        self.network = network
        self.limits = limits
        self._progress = progress
        self._addresses: dict[str, Address] = {}

    def run(self) -> list[PairResult]:
        """Raises DhtVpnError when a node does not start; a pair that does not connect is a result."""
        topology = self.network.topology
        for host in topology.bootstraps:
            self.network.start_bootstrap(host.name)
            self._progress(f"bootstrap node {host.name} listens on {self._endpoints(host)}")
        results: list[PairResult] = []
        network_id: str | None = None
        for position, host in enumerate(topology.members):
            if network_id is None:
                network_id = self.network.create(host.name)
                self._progress(f"{host.name} created the network")
            results += self._join(host, network_id, topology.members[:position])
            if position == 0:
                self._settle(self.network.node(host.name))
        return results

    def path(self, one: Host, other: Host) -> str | None:
        """The path to ``one`` that ``other``'s status shows now. Both have joined."""
        return path_to(self.network.node(other.name).cli_json("status"), self._addresses[one.name].ipv4)

    def _endpoints(self, host: Host) -> str:
        machine = self.network.node(host.name)
        return ", ".join(str(address) for address in (machine.ipv4, machine.ipv6) if address is not None)

    def _join(self, host: Host, network_id: str, earlier: Sequence[Host]) -> list[PairResult]:
        label = self.network.topology.nat_label(host)
        self._progress(f"{host.name} ({label}) joins")
        machine = self.network.node(host.name)
        stop = threading.Event()
        with ThreadPoolExecutor(max_workers=max(1, len(earlier))) as pool:
            started = time.monotonic()
            waiting = [
                pool.submit(
                    measure.first_reply,
                    machine,
                    self._addresses[peer.name].ipv4,
                    started,
                    self._deadline_s(peer, host),
                    stop,
                )
                for peer in earlier
            ]
            try:
                self.network.join(host.name, network_id)
                replies = [future.result() for future in waiting]
            finally:
                stop.set()
        status = machine.cli_json("status")
        own = status["node"]
        self._addresses[host.name] = Address(own["ipv4"], own["ipv6"])
        return [
            self._examine(peer, host, reply, status) for peer, reply in zip(earlier, replies, strict=True)
        ]

    def _deadline_s(self, one: Host, other: Host) -> float:
        if self.network.topology.expected_path(one, other) is ExpectedPath.DIRECT:
            return self.limits.first_reply_s
        return self.limits.first_reply_unexpected_s

    def _settle(self, machine: Machine) -> None:
        """Wait until the first member can be found; go on without, and say so, at the timeout."""
        if not self.network.topology.bootstraps:
            return
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            if machine.cli_json("status").get("dht", {}).get("records_published", 0) > 0:
                return
            time.sleep(0.1)
        self._progress(f"{machine.name} has not published its record in {SETTLE_TIMEOUT_S:.0f} s")

    def _examine(self, one: Host, other: Host, reply: float | None, status: dict[str, Any]) -> PairResult:
        topology = self.network.topology
        result = PairResult(
            one.name,
            other.name,
            topology.nat_label(one),
            topology.nat_label(other),
            topology.expected_path(one, other),
            first_reply_s=reply,
        )
        if reply is None:
            self._progress(f"{one.name} - {other.name}: no reply")
            return result
        self._progress(f"{one.name} - {other.name}: first reply after {reply:.2f} s")
        near, far = self.network.node(other.name), self.network.node(one.name)
        address = self._addresses[one.name]
        result = replace(
            result,
            path=path_to(status, address.ipv4),
            ipv6=measure.answers(near, address.ipv6),
            rtt_ms=measure.round_trip_ms(near, address.ipv4),
        )
        if self.limits.throughput_s > 0:
            self._progress(f"{one.name} - {other.name}: one TCP stream for {self.limits.throughput_s} s")
            mbit_s = measure.tcp_mbit_s(near, far, address.ipv4, self.limits.throughput_s)
            result = replace(result, tcp_mbit_s=mbit_s)
        return result


def path_to(status: dict[str, Any], ipv4: str) -> str | None:
    """The path that a node's status shows for the peer with that overlay address."""
    for peer in status.get("peers", []):
        if isinstance(peer, dict) and peer.get("ipv4") == ipv4:
            path = peer.get("path")
            return path if isinstance(path, str) else None
    return None


def explain(network: Network, error: DhtVpnError) -> str:
    """``error`` with the last lines of every log in the laboratory, for a run that failed."""
    lines = [str(error)]
    for log in sorted(network.entry.directory.rglob("*.log")):
        tail = log.read_text(errors="replace").splitlines()[-5:]
        lines += [f"{log.relative_to(network.entry.directory)}: {line}" for line in tail]
    return "\n".join(lines)
