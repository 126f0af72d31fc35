"""Many members in one network: how long until those who talk can, and what a node takes of the memory.

Homes of PER_HOME members behind a port-restricted NAT each, one bootstrap node that relays. Members join a
few at a time, for each start takes most of a processor for a second. Then groups drawn by lot talk: in each
everybody sends to everybody. Above 64 members a node looks those it talks to up by the first packet.
"""

import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from dhtvpn.control.client import ControlClient
from dhtvpn.errors import DhtVpnError
from dhtvpn.lab import measure, namespaces
from dhtvpn.lab.bench.processes import cpu_seconds, memory, proportional
from dhtvpn.lab.experiment import Progress, explain
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import PORT_RESTRICTED
from dhtvpn.lab.network import JOIN_TIMEOUT_S, Network
from dhtvpn.lab.topology import Host, Role, Router, Topology

Item = TypeVar("Item")

PER_HOME = 4
REPLY_S = 30.0
"""Who has not answered so long after all began to talk does not talk."""
PINGS_AT_ONCE = 8
"""Each waits in a process of its own, and starting these takes time from the nodes."""
SETTLED_S = 5.0
"""After the last reply, until memory is read."""


@dataclass(frozen=True)
class Talk:
    """Two members of a group. ``reply_s``: from when it was this pair's turn to the first reply; None without
    one. ``path`` is what the first of them says."""

    one: str
    other: str
    reply_s: float | None
    path: str | None


@dataclass(frozen=True)
class NodeCost:
    """A node's processes: control and engine. Bytes; ``alone`` is what they would take on a machine of their
    own, ``share`` what they take beside all others here (PSS); CPU seconds since its start."""

    member: str
    alone: int
    share: int
    cpu_s: float
    peers: int


@dataclass(frozen=True)
class Outcome:
    """One run. Seconds from the first join: until all nodes ran, until all who talk had a reply (None: some
    had none)."""

    members: int
    group: int
    at_once: int
    built_s: float
    joined_s: float
    complete_s: float | None
    talks: tuple[Talk, ...]
    nodes: tuple[NodeCost, ...]

    @property
    def silent(self) -> list[Talk]:
        """Pairs without a reply."""
        return [talk for talk in self.talks if talk.reply_s is None]


def topology(members: int, seed: int) -> Topology:
    """``members`` in homes, one after the other."""
    homes = [f"home{number}" for number in range(1, math.ceil(members / PER_HOME) + 1)]
    hosts = [Host(f"m{number + 1}", behind=homes[number // PER_HOME]) for number in range(members)]
    boot = Host("boot", Role.BOOTSTRAP, relay=True)
    routers = tuple(Router(home, PORT_RESTRICTED) for home in homes)
    return Topology("crowd", f"{members} members in homes", (boot, *hosts), routers, seed=seed)


def groups(members: Sequence[str], size: int, seed: int) -> list[list[str]]:
    """Who talks: everybody is in one group of at least two; the last takes whoever would be alone."""
    drawn = list(members)
    random.Random(seed).shuffle(drawn)  # noqa: S311 - the same seed shall draw the same groups
    found = [drawn[start : start + size] for start in range(0, len(drawn), size)]
    if len(found) > 1 and len(found[-1]) == 1:
        alone = found.pop()
        found[-1] += alone
    return found


def run(
    members: int, group: int, at_once: int, seed: int, progress: Progress, *, roster: int | None = None
) -> Outcome:
    """Build, join, talk, look, take down. With ``roster`` a node that knows so many members connects only to
    those that it talks to. Raises DhtVpnError when a node does not start. Needs root."""
    namespaces.check_requirements(("ip", "nft", "sysctl", "ping"))
    began = time.monotonic()
    with Network(topology(members, seed)) as network:
        built_s = time.monotonic() - began
        progress(f"{len(network.machines)} machines are up")
        try:
            return _Crowd(network, progress, roster).measure(group, at_once, seed, built_s)
        except DhtVpnError as error:
            raise DhtVpnError(explain(network, error)[:4000]) from error


class _Crowd:
    def __init__(self, network: Network, progress: Progress, roster: int | None) -> None:
        self._network, self._progress, self._roster = network, progress, roster
        self._names = [host.name for host in network.topology.members]
        self._stop = threading.Event()

    def measure(self, group: int, at_once: int, seed: int, built_s: float) -> Outcome:
        self._network.start_bootstraps()
        network_id = self._network.create(self._names[0])
        began = time.monotonic()
        self._in_parallel(at_once, self._names, lambda name: self._join(name, network_id), "joined")
        joined_s = time.monotonic() - began
        drawn = groups(self._names, group, seed)
        self._progress(f"all joined; {len(drawn)} groups of {group} talk")
        talks = self._talk([pair for each in drawn for pair in combinations(each, 2)])
        took_s = time.monotonic() - began
        complete_s = None if any(talk.reply_s is None for talk in talks) else took_s
        time.sleep(SETTLED_S)
        nodes = [self._cost(name) for name in self._names]
        members = len(self._names)
        return Outcome(members, group, at_once, built_s, joined_s, complete_s, tuple(talks), tuple(nodes))

    def _join(self, name: str, network_id: str) -> None:
        if self._roster is None:
            self._network.join(name, network_id)
            return
        machine = self._network.node(name)
        words = [word for e in self._network.bootstrap_endpoints(name) for word in ("--bootstrap", str(e))]
        command = machine.dhtvpn("join", network_id, "--name", name, *words, "--detach")
        environment = ["env", f"DHTVPN_ROSTER_SIZE={self._roster}"]
        machine.run([*environment, *command], timeout_s=JOIN_TIMEOUT_S)

    def _talk(self, pairs: Sequence[tuple[str, str]]) -> list[Talk]:
        addresses = {name: str(self._client(name).status()["node"]["ipv6"]) for name in self._names}
        talks: list[Talk] = []

        def ping(pair: tuple[str, str]) -> None:
            one, other = pair
            machine, began = self._network.node(one), time.monotonic()
            reply_s = measure.first_reply(machine, addresses[other], began, REPLY_S, self._stop)
            peers = self._client(one).status()["peers"]
            path = next((peer["path"] for peer in peers if peer["ipv6"] == addresses[other]), None)
            talks.append(Talk(one, other, reply_s, path))

        self._in_parallel(PINGS_AT_ONCE, pairs, ping, "pairs talked")
        return talks

    def _in_parallel(
        self, at_once: int, items: Sequence[Item], work: Callable[[Item], object], done: str
    ) -> None:
        """All of them, ``at_once`` at a time; what fails or is interrupted ends what has not begun."""
        pool = ThreadPoolExecutor(at_once)
        try:
            for number, _ in enumerate(pool.map(work, items), start=1):
                if number % 10 == 0 or number == len(items):
                    self._progress(f"{number}/{len(items)} {done}")
        except BaseException:
            self._stop.set()  # what runs shall not be waited for longer than needed
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _client(self, name: str) -> ControlClient:
        (path,) = (self._network.node(name).state_dir / "run").glob("*.sock")
        return ControlClient(path)

    def _cost(self, name: str) -> NodeCost:
        machine: Machine = self._network.node(name)
        pids = machine.processes()
        status = self._client(name).status()
        return NodeCost(name, memory(pids).total, proportional(pids), cpu_seconds(pids), len(status["peers"]))


def default_at_once() -> int:
    """Joins at a time: as many as there are processors."""
    return os.cpu_count() or 1
