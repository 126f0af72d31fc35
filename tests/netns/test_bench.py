"""The bench in small: it measures, prints JSON that adds up, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dhtvpn.lab import namespaces, register

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("laboratory_possible")]

BENCH = [sys.executable, "-m", "dhtvpn", "lab", "bench", "--quick", "--json"]


def start(*arguments: str, **extra: str) -> subprocess.Popen[str]:
    """A bench, with ``extra`` in its environment."""
    kept = {name: value for name, value in os.environ.items() if "BENCH" not in name}
    return subprocess.Popen(
        [*BENCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, **extra},
    )


def tags(child: subprocess.Popen[str]) -> list[str]:
    """The laboratories that are registered as this process's."""
    return [entry.tag for entry in register.entries() if entry.owner == child.pid]


def run(*arguments: str, code: int = 0, **extra: str) -> dict[str, Any]:
    """Run a bench to its end; what it printed."""
    child = start(*arguments, **extra)
    said, progress = child.communicate(timeout=120)
    assert child.returncode == code, progress
    assert tags(child) == []
    document: dict[str, Any] = json.loads(said)
    return document


def test_a_short_run_of_the_wire_and_of_dhtvpn() -> None:
    measures = ("tcp", "udp", "lossy", "memory")
    words = [word for name in measures for word in ("--measure", name)]
    document = run("--only", "none", "--only", "dhtvpn-aes", *words)
    assert document["failures"] == [] and document["left_out"] == {}
    assert (document["rounds"], document["quick"]) == (1, True)
    assert document["cut"] == ["tcp4", "both", "ping", "loaded", "idle"]
    wire, ours = (document["tunnels"][name]["figures"] for name in ("none", "dhtvpn-aes"))
    assert wire["tcp_gbit_s"]["median"] > ours["tcp_gbit_s"]["median"] > 0.02
    assert wire["udp_kpackets_s"]["median"] > ours["udp_kpackets_s"]["median"] > 0.5
    for figures in (wire, ours):
        assert 1 < figures["lossy_mbit_s"]["median"] < 500, "the loss is felt"
    assert ours["tcp_gbit_s"]["to_none"] == pytest.approx(
        ours["tcp_gbit_s"]["median"] / wire["tcp_gbit_s"]["median"], rel=0.01
    )
    assert ours["cpu_s_per_gb"]["median"] > 0.1
    assert wire["cpu_s_per_gb"]["median"] is None, "no process stands for the wire"
    assert 20 < ours["memory_mb"]["median"] <= ours["rss_mb"]["median"] < 300


def test_a_tunnel_by_commands_of_the_users(tmp_path: Path) -> None:
    down = tmp_path / "down"
    enter = "ip -n $BENCH_{0}_NAMESPACE"
    up = [
        "ip link add mine netns $BENCH_LEFT_NAMESPACE type veth peer mine netns $BENCH_RIGHT_NAMESPACE",
        *(
            f"{enter.format(side)} address add $BENCH_{side}_OVERLAY/$BENCH_OVERLAY_PREFIX dev mine"
            for side in ("LEFT", "RIGHT")
        ),
        *(f"{enter.format(side)} link set mine up" for side in ("LEFT", "RIGHT")),
    ]
    tunnels = {"mine": {"up": " && ".join(up), "down": f"touch {down}", "programs": ["ip"]}}
    document = run("--only", "mine", "--measure", "ping", DHTVPN_BENCH_TUNNELS=json.dumps(tunnels))
    assert 0 < document["tunnels"]["mine"]["figures"]["ping_p50_ms"]["median"] < 100
    assert down.exists()


def test_a_tunnel_that_does_not_come_up_is_said_and_the_others_are_measured() -> None:
    broken = json.dumps({"broken": {"up": "echo it has no key >&2; exit 7"}})
    words = ("--only", "none", "--only", "broken", "--measure", "ping")
    document = run(*words, code=1, DHTVPN_BENCH_TUNNELS=broken)
    assert "it has no key" in document["left_out"]["broken"]
    assert document["tunnels"]["none"]["figures"]["ping_p50_ms"]["median"] > 0


@pytest.mark.parametrize("moment", ["dhtvpn-aes starts", "none is up", "round 1 of 1: lossy"])
def test_interrupted_at_any_moment_it_leaves_nothing(moment: str) -> None:
    child = start("--only", "none", "--only", "dhtvpn-aes", "--measure", "lossy")
    assert child.stderr is not None
    said = []
    for line in child.stderr:
        said.append(line)
        if moment in line:
            break
    (tag,) = tags(child)
    child.send_signal(signal.SIGINT)
    _, rest = child.communicate(timeout=30)
    assert child.returncode == 130, said
    assert "Traceback" not in rest
    assert tags(child) == []
    assert not [name for name in namespaces.all_of_ours() if name.startswith(f"dvl-{tag}-")]
