"""The measurement: how long until a member that joins is known to one that is there.

Two members sit behind a port-restricted NAT each; between any two sites there is the same round trip; the DHT
consists of many nodes, each at a site (and in a /24) of its own. In every round the second member is new: its
state is empty, it knows the network-id and three nodes of the DHT. Its ``dhtvpn join`` is timed from before
the process starts to the moment at which the first member has its record, opened and verified.
"""

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dhtvpn.control.client import ControlClient
from dhtvpn.errors import DhtVpnError, TimedOutError
from dhtvpn.lab.discovery import dht_nodes
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.machine import Machine, read_line
from dhtvpn.lab.nat_behaviour import PORT_RESTRICTED
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Router, Topology
from dhtvpn.networks import socket_path

FIRST, SECOND = "first", "second"
NETWORK = "lab"

NODES_START_S = 60.0
MEMBER_START_S = 20.0
SETTLE_S = 3.0
"""After the first member has published: its watch has its leases."""

PAUSE_S = 2.0
"""Up to so much before a join, by chance: else joins and a periodic question would keep step."""

FOUND_DEADLINE_S = 15.0
"""A member not found in this time counts as not found."""

CONNECTED_DEADLINE_S = 10.0
LEAVE_S = 8.0

_LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \w+ (\S+): (.*)")
_PHASES = (
    ("code_loaded", re.compile(r"the node's code is loaded")),
    ("published", re.compile(r"record published, [1-9]")),
)
"""Moments that the second member's log tells."""

_EVENTS = (
    ("node_up", "start", re.compile("")),
    ("dht_reached", "directory", re.compile("in the DHT")),
    ("public_endpoint", "nat", re.compile("seen from outside")),
)
"""Moments that its events tell."""

Progress = Callable[[str], None]


def topology(dht_size: int, round_trip_s: float, seed: int) -> Topology:
    """``dht_size`` public sites with a DHT node each, and two members behind a NAT each."""
    nodes = (Host(f"dht{number}", Role.PLAIN) for number in range(dht_size))
    return Topology(
        "discovery",
        f"two members behind NATs, {dht_size} DHT nodes",
        hosts=(*nodes, *(Host(name, behind=f"{name}-home") for name in (FIRST, SECOND))),
        routers=tuple(Router(f"{name}-home", PORT_RESTRICTED) for name in (FIRST, SECOND)),
        lines=Conditions(delay_s=round_trip_s / 4) if round_trip_s else None,
        seed=seed,
    )


@dataclass(frozen=True)
class Round:
    """One join. Seconds since before its process was started; None: it did not happen in time.

    ``found_s``: the first member has the second's verified record. ``connected_s``: the first member has a
    tunnel to it. ``phases``: what the second member itself says, by name.
    """

    found_s: float | None
    connected_s: float | None
    phases: Mapping[str, float] = field(default_factory=dict)

    @property
    def found_without_python_s(self) -> float | None:
        """The same from the moment at which the interpreter had loaded the node's code."""
        loaded = self.phases.get("code_loaded")
        return None if self.found_s is None or loaded is None else self.found_s - loaded


class Rounds:
    """A laboratory in which joins are timed. ``watch`` False: the first member only asks now and then."""

    def __init__(self, network: Network, *, watch: bool, progress: Progress) -> None:
        self._network = network
        self._progress = progress
        self._first, self._second = network.node(FIRST), network.node(SECOND)
        nodes = [host for host in network.topology.hosts if host.role is Role.PLAIN]
        self._places = [network.node(host.name) for host in nodes]
        self._watch = watch
        self._network_id = ""
        self._number = 0
        self._chance = random.Random(network.topology.seed)  # noqa: S311 - repeatable, not secret

    def start(self) -> None:
        """Start the DHT and the first member. Raises DhtVpnError."""
        places = [[machine.namespace, str(machine.ipv4)] for machine in self._places]
        nodes = self._child(self._places[0], "dht_nodes", places)
        read_line(nodes, NODES_START_S, "the DHT nodes")
        self._progress(f"{len(places)} DHT nodes are up")
        self._network_id = self._network.create(FIRST, NETWORK)
        member = {
            "state_dir": str(self._first.state_dir),
            "network": NETWORK,
            "hostname": FIRST,
            "bootstrap": self._contacts(),
            "watch": self._watch,
        }
        read_line(self._child(self._first, "member", member), MEMBER_START_S, "the first member")
        self._wait_published()
        time.sleep(SETTLE_S)

    def measure(self) -> Round:
        """One join of a member that is new to everybody."""
        self._number += 1
        time.sleep(self._chance.uniform(0, PAUSE_S))
        name = f"m{self._number:03d}"
        directory = self._second.directory / name
        ears = _Ears(self._client(), name)
        began = time.time()
        join = self._join(name, directory)
        try:
            found = ears.found.wait(FOUND_DEADLINE_S) or None
            connected = found and (ears.connected.wait(CONNECTED_DEADLINE_S) or None)
        finally:
            self._end(join)
        return Round(
            found and ears.found_at - began,
            connected and ears.connected_at - began,
            _phases(directory, began),
        )

    def _join(self, name: str, directory: Path) -> subprocess.Popen[str]:
        directory.mkdir(parents=True)
        contacts = [word for contact in self._contacts() for word in ("--bootstrap", contact)]
        command = [sys.executable, "-m", "dhtvpn", "--state-dir", str(directory / "state")]
        command += ["join", self._network_id, "--name", name, *contacts, "--json", "-vv"]
        with (directory / "events").open("w") as events, (directory / "log").open("w") as log:
            return self._second.popen(command, stdout=events, stderr=log)

    def _end(self, join: subprocess.Popen[str]) -> None:
        join.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            join.wait(LEAVE_S)
        self._second.kill_all()

    def _contacts(self) -> list[str]:
        return [f"{machine.ipv4}:{dht_nodes.PORT}" for machine in self._places[: dht_nodes.CONTACTS]]

    def _client(self) -> ControlClient:
        return ControlClient(socket_path(self._first.state_dir, NETWORK))

    def _wait_published(self) -> None:
        deadline = time.monotonic() + MEMBER_START_S
        while not self._client().status()["dht"]["records_published"]:
            if time.monotonic() > deadline:
                raise TimedOutError("the first member does not publish its record")
            time.sleep(0.1)

    def _child(self, machine: Machine, module: str, given: object) -> subprocess.Popen[str]:
        child = machine.popen(
            [sys.executable, "-m", f"dhtvpn.lab.discovery.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=machine.log_file(module).open("w"),
        )
        assert child.stdin is not None  # noqa: S101 - it is a pipe, as asked for above
        with suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(json.dumps(given))
        return child


class _Ears:
    """Listens to the first member's events for what it says of the member called ``name``."""

    def __init__(self, client: ControlClient, name: str) -> None:
        self.found, self.connected = threading.Event(), threading.Event()
        self.found_at = self.connected_at = 0.0
        self._client, self._name = client, name
        threading.Thread(target=self._listen, name=f"events of {name}", daemon=True).start()

    def _listen(self) -> None:
        with suppress(DhtVpnError):
            for event in self._client.events():
                self._hear(event)
                if self.connected.is_set():
                    return

    def _hear(self, event: Mapping[str, Any]) -> None:
        if not re.match(rf"{self._name}\b", event["text"]):
            return
        if event["kind"] == "member":
            self.found_at = event["time"]
            self.found.set()
        elif event["kind"] == "peer" and "is connected" in event["text"]:
            self.connected_at = event["time"]
            self.connected.set()


def _phases(directory: Path, began: float) -> dict[str, float]:
    """When the second member got where, from its log and its events; the first time counts."""
    phases: dict[str, float] = {}
    for line in (directory / "log").read_text().splitlines():
        parts = _LOG_LINE.match(line)
        for name, pattern in _PHASES:
            if parts is not None and pattern.search(parts[3]):
                at = datetime.strptime(parts[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
                phases.setdefault(name, at - began)
    for line in (directory / "events").read_text().splitlines():
        with suppress(ValueError, KeyError):
            event = json.loads(line)
            for name, kind, pattern in _EVENTS:
                if event["kind"] == kind and pattern.search(event["text"]):
                    phases.setdefault(name, event["time"] - began)
    return dict(sorted(phases.items(), key=lambda phase: phase[1]))
