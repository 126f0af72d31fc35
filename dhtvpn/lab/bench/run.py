"""One run of the bench: pairs and tunnels up, the schedule worked off, everything removed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab import clean, namespaces, register
from dhtvpn.lab.bench import measurements, schedule
from dhtvpn.lab.bench.figures import Summary
from dhtvpn.lab.bench.measurements import Figures, Lengths, Running
from dhtvpn.lab.bench.pair import Pair
from dhtvpn.lab.bench.schedule import Measure
from dhtvpn.lab.bench.tunnels import Tunnel
from dhtvpn.lab.machine import Machine

Progress = Callable[[str], None]

TOOLS = ("ip", "sysctl", "ping", "iperf3")
PER_TUNNEL: Mapping[str, measurements.Measurement] = {
    "tcp": measurements.tcp,
    "tcp4": measurements.tcp4,
    "both": measurements.both,
    "udp": measurements.udp,
    "ping": measurements.ping,
    "loaded": measurements.loaded,
    "lossy": measurements.lossy,
    "memory": measurements.memory,
}


@dataclass
class Results:
    """What came out: by tunnel and figure, one value per round."""

    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, tunnel: str, figures: Figures) -> None:
        for key, value in figures.items():
            self.values.setdefault(tunnel, {}).setdefault(key, []).append(value)

    def summary(self, tunnel: str, key: str) -> Summary:
        return Summary(tuple(self.values.get(tunnel, {}).get(key, ())))


def measure(
    running: Mapping[str, Running],
    rounds: int,
    measures: Sequence[Measure],
    lengths: Lengths,
    progress: Progress,
) -> Results:
    """Work off the schedule. A measurement that fails is a result without a figure."""
    results = Results()
    for step in schedule.steps(rounds, measures, list(running)):
        progress(f"round {step.round} of {rounds}: {step.measure.name} {step.tunnel or ''}".rstrip())
        if step.tunnel is None:
            for tunnel, figures in measurements.idle(running, lengths).items():
                results.add(tunnel, figures)
            continue
        try:
            figures = PER_TUNNEL[step.measure.name](running[step.tunnel], lengths, step.round)
        except (DhtVpnError, OSError) as error:
            sentence = f"{step.tunnel}: {step.measure.name} in round {step.round}: {error}"
            progress(sentence)
            results.failures.append(sentence)
            figures = dict.fromkeys(step.measure.figures)
        results.add(step.tunnel, figures)
    return results


class Bench:
    """The laboratory of one run. A context manager; nothing is left when it ends, however it ends."""

    def __init__(self, tunnels: Sequence[Tunnel], progress: Progress) -> None:
        namespaces.check_requirements(TOOLS)
        self._progress = progress
        self._tunnels = list(tunnels)
        self._started: list[tuple[Tunnel, Pair]] = []
        self._machines: list[Machine] = []
        self.running: dict[str, Running] = {}
        self.not_up: dict[str, str] = {}
        self._entry = register.register("bench")

    def __enter__(self) -> Self:
        try:
            self._bring_up()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tear_down()

    def _bring_up(self) -> None:
        """Start all tunnels first, then wait for each: their starts overlap."""
        for tunnel in self._tunnels:
            pair = Pair(tunnel.name, self._entry.prefix, self._entry.directory)
            self._machines += pair.machines
            pair.build()
            self._progress(f"{tunnel.name} starts")
            self._started.append((tunnel, pair))
            try:
                tunnel.start(pair)
            except DhtVpnError as error:
                self._fail(tunnel, error)
        for tunnel, pair in self._started:
            if tunnel.name in self.not_up:
                continue
            try:
                self.running[tunnel.name] = Running(tunnel, pair, tunnel.connect(pair))
                self._progress(f"{tunnel.name} is up")
            except DhtVpnError as error:
                self._fail(tunnel, error)

    def _fail(self, tunnel: Tunnel, error: DhtVpnError) -> None:
        self.not_up[tunnel.name] = str(error)
        self._progress(f"{tunnel.name} does not come up: {error}")

    def _tear_down(self) -> None:
        try:
            for tunnel, pair in self._started:
                self._take_down(tunnel, pair)
        finally:
            self._started.clear()
            clean.tear_down(self._entry, self._machines)

    def _take_down(self, tunnel: Tunnel, pair: Pair) -> None:
        try:
            tunnel.down(pair)
        except DhtVpnError as error:
            self._progress(f"{tunnel.name}: {error}")
