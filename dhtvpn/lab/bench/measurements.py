"""The measurements: each takes a tunnel that is up and yields one or several figures."""

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab import namespaces
from dhtvpn.lab.bench import processes, streams
from dhtvpn.lab.bench.figures import percentile
from dhtvpn.lab.bench.pair import Pair
from dhtvpn.lab.bench.rate_search import RateSearch, Trial
from dhtvpn.lab.bench.tunnels import Ends, Tunnel
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.machine import Machine, read_line

LOSSY = Conditions(delay_s=0.004, jitter_s=0.004, loss=0.005, reordering=0.01)
PING_INTERVAL_S = 0.01
PING_DEADLINE_S = 1
FIRST_GUESS_PACKETS_S = 100_000.0
UDP_PORT = 5300
SETTLE_S = 0.7
"""From the start of a stream until it is full and pings are sent."""

DRAIN_S = 0.05
"""Between two looks at the receiver after a trial: nothing new means that nothing is under way."""

GENERATOR_PATIENCE_S = 20.0
"""How long the packet generator may take for an answer; a trial is much shorter."""

_REPLY = re.compile(r"time=([0-9.]+) ms")
_SENT = re.compile(r"(\d+) packets transmitted")


@dataclass(frozen=True)
class Lengths:
    """How long each measurement takes."""

    stream_s: int
    lossy_s: int
    pings: int
    trial_s: float
    trials: int
    idle_s: float


FULL = Lengths(stream_s=4, lossy_s=6, pings=200, trial_s=0.5, trials=12, idle_s=6.0)
QUICK = Lengths(stream_s=2, lossy_s=2, pings=80, trial_s=0.2, trials=6, idle_s=4.0)


@dataclass
class Running:
    """A tunnel that is up, and what was learnt of it that helps the next round."""

    tunnel: Tunnel
    pair: Pair
    ends: Ends
    packets_s: float = FIRST_GUESS_PACKETS_S

    def processes(self) -> list[int]:
        """What runs in its namespaces: the tunnel's own, while nothing is measured."""
        return namespaces.processes_in([machine.namespace for machine in self.pair.machines])

    def nodes(self) -> list[list[int]]:
        """The same, side by side."""
        return [namespaces.processes_in([machine.namespace]) for machine in self.pair.machines]


Figures = dict[str, float | None]
Measurement = Callable[[Running, Lengths, int], Figures]


def tcp(running: Running, lengths: Lengths, number: int) -> Figures:
    """One stream, and what it costs."""
    pids = running.processes()
    cpu, machine = processes.cpu_seconds(pids), processes.machine_time()
    result = _stream(running, lengths.stream_s)
    used = processes.cpu_seconds(pids) - cpu
    spent = processes.machine_time().since(machine)
    gigabytes = result.received_bytes / 1e9
    if gigabytes == 0:
        raise DhtVpnError("nothing arrived")
    own: Figures = {"cpu_s_per_gb": used / gigabytes} if pids else {}
    return {
        **own,
        "tcp_gbit_s": result.bits_per_s / 1e9,
        "softirq_s_per_gb": spent.softirq_s / gigabytes,
        "machine_s_per_gb": spent.busy_s / gigabytes,
    }


def tcp4(running: Running, lengths: Lengths, number: int) -> Figures:
    """Four streams at once."""
    return {"tcp4_gbit_s": _stream(running, lengths.stream_s, count=4).bits_per_s / 1e9}


def both(running: Running, lengths: Lengths, number: int) -> Figures:
    """One stream each way at once."""
    return {"both_gbit_s": _stream(running, lengths.stream_s, both_ways=True).bits_per_s / 1e9}


def lossy(running: Running, lengths: Lengths, number: int) -> Figures:
    """One stream over the lossy link; the same seed for every tunnel in one round."""
    with running.pair.emulated_link(LOSSY, seed=number) as counters:
        _first_packets(running)
        result = _stream(running, lengths.lossy_s)
    if counters.carried_bytes < result.received_bytes:
        raise DhtVpnError("the stream did not go over the lossy link")
    return {"lossy_mbit_s": result.bits_per_s / 1e6}


def ping(running: Running, lengths: Lengths, number: int) -> Figures:
    """Round trips while nothing else is sent."""
    p50, p99 = _round_trips(running, lengths.pings)
    return {"ping_p50_ms": p50, "ping_p99_ms": p99}


def loaded(running: Running, lengths: Lengths, number: int) -> Figures:
    """Round trips while one stream goes the same way."""
    pair, address = running.pair, running.ends.right
    seconds = math.ceil(SETTLE_S + lengths.pings * PING_INTERVAL_S) + 5
    with streams.server(pair.right, address):
        load = pair.left.popen(streams.client(address, seconds))
        try:
            time.sleep(SETTLE_S)
            p50, p99 = _round_trips(running, lengths.pings)
            if load.poll() is not None:
                raise DhtVpnError("the stream ended while pings were sent")
        finally:
            streams.end(load)
            pair.left.reap()
    return {"loaded_p50_ms": p50, "loaded_p99_ms": p99}


def udp(running: Running, lengths: Lengths, number: int) -> Figures:
    """The highest rate of 64-byte packets that arrive with less than 1% lost."""
    search = RateSearch(running.packets_s, lengths.trials)
    with (
        _SmallPackets(running.pair.right, "receive", running.ends.right) as receiver,
        _SmallPackets(running.pair.left, "send", running.ends.right) as sender,
    ):
        while (rate := search.next_rate()) is not None:
            search.report(_trial(sender, receiver, rate, lengths.trial_s))
    if search.best is None:
        raise DhtVpnError("no rate got through with less than 1% lost")
    running.packets_s = search.best
    return {"udp_kpackets_s": search.best / 1e3}


def memory(running: Running, lengths: Lengths, number: int) -> Figures:
    """Memory of the larger node's processes, after the loads before it."""
    found = [processes.memory(pids) for pids in running.nodes()]
    if not any(node.rss for node in found):
        return {}
    return {
        "memory_mb": max(node.total for node in found) / 1e6,
        "rss_mb": max(node.rss for node in found) / 1e6,
    }


def idle(everything: Mapping[str, Running], lengths: Lengths) -> dict[str, Figures]:
    """CPU of the busier node of each tunnel over the same seconds, in which nobody sends: by tunnel."""
    groups = {name: running.nodes() for name, running in everything.items() if running.processes()}
    before = {name: _cpu_of_each(nodes) for name, nodes in groups.items()}
    began = time.monotonic()
    time.sleep(lengths.idle_s)
    after = {name: _cpu_of_each(nodes) for name, nodes in groups.items()}
    seconds = time.monotonic() - began
    return {
        name: {
            "idle_percent": 100 * max(map(float.__sub__, after[name], before[name])) / seconds,
        }
        for name in groups
    }


def _cpu_of_each(nodes: Sequence[Sequence[int]]) -> list[float]:
    return [processes.cpu_seconds(pids) for pids in nodes]


def _stream(running: Running, seconds: int, count: int = 1, both_ways: bool = False) -> streams.Transfer:
    pair = running.pair
    return streams.transfer(pair.left, pair.right, running.ends.right, seconds, streams=count, both=both_ways)


def _first_packets(running: Running) -> None:
    """Let the tunnel notice that the wire has changed. Raises DhtVpnError when nothing gets through."""
    words = ["ping", "-n", "-q", "-c", "10", "-i", "0.03", "-w", "10", running.ends.right]
    if running.pair.left.run(words, check=False).returncode != 0:
        raise DhtVpnError("no echo reply over the lossy link")


def _round_trips(running: Running, count: int) -> tuple[float, float]:
    words = ["ping", "-n", "-c", str(count), "-i", str(PING_INTERVAL_S), "-W", str(PING_DEADLINE_S)]
    done = running.pair.left.run([*words, running.ends.right], check=False)
    return parse_round_trips(done.stdout)


def parse_round_trips(text: str) -> tuple[float, float]:
    """p50 and p99 in milliseconds of what ping printed. A request without a reply counts as its deadline,
    one second. Raises DhtVpnError when there was no reply at all."""
    replies = [float(reply) for reply in _REPLY.findall(text)]
    sent = _SENT.search(text)
    if not replies or sent is None:
        raise DhtVpnError("no echo reply")
    lost = max(0, int(sent[1]) - len(replies))
    values = [*replies, *[1e3 * PING_DEADLINE_S] * lost]
    return percentile(values, 0.50), percentile(values, 0.99)


class _SmallPackets:
    """The generator's process of one side; see ``small_packets``."""

    def __init__(self, machine: Machine, role: str, address: str) -> None:
        self._machine, self._role, self._address = machine, role, address

    def __enter__(self) -> "_SmallPackets":
        words = [sys.executable, "-m", "dhtvpn.lab.bench.small_packets"]
        self._child = self._machine.popen(
            [*words, self._role, self._address, str(UDP_PORT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        streams.end(self._child)
        self._machine.reap()

    def ask(self, line: str) -> dict[str, float]:
        """Send a line, return the answer. Raises DhtVpnError."""
        assert self._child.stdin is not None  # noqa: S101 - we opened the pipe
        try:
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        except OSError as error:
            raise DhtVpnError(f"the packet generator ended: {error.strerror}") from error
        return self._answer()

    def _answer(self) -> dict[str, float]:
        line = read_line(self._child, GENERATOR_PATIENCE_S, "the packet generator")
        try:
            answer: dict[str, float] = json.loads(line)
        except ValueError as error:
            raise DhtVpnError(f"the packet generator said {line[:80]!r}") from error
        return answer


def _trial(sender: _SmallPackets, receiver: _SmallPackets, rate: float, seconds: float) -> Trial:
    receiver.ask("forget what came late")
    sent = sender.ask(f"{rate} {seconds}")
    arrived = 0
    while more := int(receiver.ask("count")["arrived"]):
        arrived += more
        time.sleep(DRAIN_S)
    return Trial(int(sent["sent"]), arrived, sent["seconds"])
