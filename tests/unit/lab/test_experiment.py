"""The order of an experiment, with a network and measures that only keep notes."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab import measure, topologies
from dhtvpn.lab.experiment import Experiment, Limits, explain, path_to
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import ExpectedPath, Topology


class FakeMachine:
    """A member whose overlay addresses are made from its position in the topology."""

    ipv4, ipv6 = "198.18.0.2", None

    def __init__(self, name: str, number: int, notes: list[str], published_after: int) -> None:
        self.name = name
        self.number = number
        self._notes = notes
        self._unpublished_answers = published_after

    def cli_json(self, *arguments: str) -> dict[str, Any]:
        self._notes.append(f"{self.name} {' '.join(arguments)}")
        published = self._unpublished_answers <= 0
        self._unpublished_answers -= 1
        return {
            "node": {"ipv4": f"10.0.0.{self.number}", "ipv6": f"fd00::{self.number}"},
            "dht": {"records_published": 1 if published else 0},
            "peers": [{"ipv4": f"10.0.0.{number}", "path": "direct"} for number in range(self.number)],
        }


class FakeNetwork:
    def __init__(self, topology: Topology, notes: list[str], failing: str | None = None) -> None:
        self.topology = topology
        self._notes = notes
        self._failing = failing
        self._machines = {
            host.name: FakeMachine(host.name, number, notes, published_after=2)
            for number, host in enumerate(topology.hosts)
        }

    def node(self, name: str) -> FakeMachine:
        return self._machines[name]

    def start_bootstrap(self, name: str) -> None:
        self._notes.append(f"start {name}")

    def create(self, name: str) -> str:
        self._notes.append(f"create on {name}")
        return "dv1word"

    def join(self, name: str, network_id: str) -> None:
        self._notes.append(f"{name} joins {network_id}")
        if name == self._failing:
            raise DhtVpnError("no /dev/net/tun")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order; measures are made up, and a ping to 10.0.0.9 is never answered."""
    written: list[str] = []

    def first_reply(
        machine: FakeMachine, address: str, started: float, deadline_s: float, stop: threading.Event
    ) -> float | None:
        if deadline_s < Limits().first_reply_s:
            stop.wait(5)
            return None
        return 0.5

    def tcp_mbit_s(sender: FakeMachine, receiver: FakeMachine, address: str, seconds: int) -> float:
        written.append(f"tcp {sender.name} to {receiver.name} at {address} for {seconds} s")
        return 100.0

    monkeypatch.setattr(measure, "first_reply", first_reply)
    monkeypatch.setattr(measure, "answers", lambda machine, address: address.startswith("fd00::"))
    monkeypatch.setattr(measure, "round_trip_ms", lambda machine, address: 0.4)
    monkeypatch.setattr(measure, "tcp_mbit_s", tcp_mbit_s)
    monkeypatch.setattr("dhtvpn.lab.experiment.time.sleep", lambda seconds: None)
    return written


def experiment(network: FakeNetwork, limits: Limits, progress: list[str]) -> Experiment:
    return Experiment(cast(Network, network), limits, progress.append)


def test_members_join_one_by_one_and_every_pair_is_measured(notes: list[str]) -> None:
    progress: list[str] = []
    results = experiment(FakeNetwork(topologies.DEMO, notes), Limits(throughput_s=2), progress).run()
    assert [(pair.one, pair.other) for pair in results] == [
        ("laptop", "phone"),
        ("laptop", "server"),
        ("phone", "server"),
    ]
    assert all(pair.connected and pair.path == "direct" and pair.tcp_mbit_s == 100.0 for pair in results)
    assert notes == [
        "start boot",
        "create on laptop",
        "laptop joins dv1word",
        "laptop status",  # its addresses
        "laptop status",  # not published yet
        "laptop status",  # published
        "phone joins dv1word",
        "phone status",
        "tcp phone to laptop at 10.0.0.1 for 2 s",
        "server joins dv1word",
        "server status",
        "tcp server to laptop at 10.0.0.1 for 2 s",
        "tcp server to phone at 10.0.0.2 for 2 s",
    ]
    assert progress[0].startswith("bootstrap node boot listens on 198.18.0.2")
    assert "laptop (EIM/APDF) joins" in progress


def test_a_pair_without_a_direct_path_may_stay_silent(
    notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "first_reply", lambda *arguments: None)
    network = FakeNetwork(topologies.SYMMETRIC_PAIR, notes)
    (pair,) = experiment(network, Limits(), []).run()
    assert pair.expected is ExpectedPath.RELAY
    assert not pair.connected
    assert pair.as_expected
    assert not any(note.startswith("tcp") for note in notes)


def test_a_join_that_fails_stops_the_waiting_for_replies(
    notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []

    def wait_for_stop(*arguments: Any) -> None:
        stopped.append(cast(threading.Event, arguments[-1]).wait(10))

    monkeypatch.setattr(measure, "first_reply", wait_for_stop)
    network = FakeNetwork(topologies.PAIR, notes, failing="phone")
    with pytest.raises(DhtVpnError, match="no /dev/net/tun"):
        experiment(network, Limits(), []).run()
    assert stopped == [True]


def test_no_throughput_when_none_is_wanted(notes: list[str]) -> None:
    (pair,) = experiment(FakeNetwork(topologies.PAIR, notes), Limits(throughput_s=0), []).run()
    assert pair.tcp_mbit_s is None
    assert pair.connected


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        ([], None),
        ([{"ipv4": "10.0.0.1", "path": "direct"}], "direct"),
        ([{"ipv4": "10.0.0.2", "path": "direct"}], None),
        ([{"ipv4": "10.0.0.1", "path": None}], None),
        (["odd"], None),
    ],
)
def test_path_to(peers: Sequence[Any], expected: str | None) -> None:
    assert path_to({"peers": peers}, "10.0.0.1") == expected


def test_a_failed_run_is_explained_with_the_last_lines_of_the_logs(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "bootstrap.log").write_text("\n".join(f"line {number}" for number in range(9)))
    network = cast(Network, SimpleNamespace(entry=SimpleNamespace(directory=tmp_path)))
    lines = explain(network, DhtVpnError("phone: it failed")).splitlines()
    assert lines[0] == "phone: it failed"
    assert lines[1:] == [f"boot/bootstrap.log: line {number}" for number in range(4, 9)]
