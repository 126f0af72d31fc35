"""Working off the schedule: every value finds its tunnel, and a failure is a result too."""

from pathlib import Path

import pytest

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab.bench import measurements, run, schedule
from dhtvpn.lab.bench.measurements import QUICK, Figures, Lengths, Running
from dhtvpn.lab.bench.pair import Pair
from dhtvpn.lab.bench.tunnels import OWN_ENDS, NoTunnel


@pytest.fixture
def running(tmp_path: Path) -> dict[str, Running]:
    return {
        name: Running(NoTunnel(), Pair(name, "dvl-0000-", tmp_path), OWN_ENDS) for name in ("good", "bad")
    }


def ping(taken: Running, lengths: Lengths, number: int) -> Figures:
    if taken.pair.name == "bad" and number == 2:
        raise DhtVpnError("no echo reply")
    return {"ping_p50_ms": float(number), "ping_p99_ms": 10.0 * number}


def test_values_failures_and_idle(running: dict[str, Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PER_TUNNEL", {"ping": ping})
    monkeypatch.setattr(measurements, "idle", lambda everything, lengths: {"good": {"idle_percent": 0.1}})
    said: list[str] = []
    results = run.measure(running, 3, schedule.chosen(["ping", "idle"], True), QUICK, said.append)
    assert results.summary("good", "ping_p50_ms").each == (1.0, 2.0, 3.0)
    assert results.summary("bad", "ping_p99_ms").each == (10.0, None, 30.0)
    assert results.summary("good", "idle_percent").each == (0.1, 0.1, 0.1)
    assert results.summary("bad", "idle_percent").each == ()
    assert results.failures == ["bad: ping in round 2: no echo reply"]
    assert said[0] == "round 1 of 3: ping good"
    assert results.failures[0] in said


def test_what_the_system_refuses_ends_a_measurement_and_not_the_run(
    running: dict[str, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(taken: Running, lengths: Lengths, number: int) -> Figures:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(run, "PER_TUNNEL", {"tcp": refused})
    results = run.measure(running, 1, schedule.chosen(["tcp"], True), QUICK, lambda _: None)
    assert len(results.failures) == 2
    assert results.summary("good", "tcp_gbit_s").each == (None,)


def test_the_idle_share_is_that_of_the_busier_node(
    running: dict[str, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = {1: iter([10.0, 10.03]), 2: iter([5.0, 5.06])}
    clock = iter([100.0, 106.0])
    monkeypatch.setattr(Running, "nodes", lambda self: [[1], [2]])
    monkeypatch.setattr(Running, "processes", lambda self: [1, 2] if self.pair.name == "good" else [])
    monkeypatch.setattr(measurements.processes, "cpu_seconds", lambda pids: next(used[pids[0]]))
    monkeypatch.setattr(measurements.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(measurements.time, "sleep", lambda seconds: None)
    found = measurements.idle(running, QUICK)
    assert set(found) == {"good"}
    assert found["good"]["idle_percent"] == pytest.approx(1.0)
