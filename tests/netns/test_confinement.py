"""What both processes of a node may still do, as the kernel says, and that all goes on with it: an engine
that dies is replaced at once, the user is told, and the end leaves nothing behind."""

import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from joined import (
    eventually,
    join_all,
    log_text,
    overlay,
    pings,
    status,
    traces,
    wait_connected,
)

from dhtvpn.lab import topologies
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

NET_ADMIN, NOBODY, SOMEBODY = 1 << 12, 65534, 54321
BACK_WITHIN_S = 2.0
UNIT_CAPABILITIES = (
    "-all,+net_admin,+chown,+dac_override,+setuid,+setgid,+setpcap"  # docs/how-to/dhtvpn@.service
)


def rights(pid: int) -> dict[str, int]:
    """User, capabilities and so on of a process, from /proc/PID/status."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    (user,) = set(lines["Uid"].split())
    found = {name: int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    flags = {name: int(lines[name]) for name in ("NoNewPrivs", "Threads", "Seccomp")}
    return found | flags | {"Uid": int(user)}


def assert_confined(machine: Machine, user: int) -> None:
    """Every process of the node that runs on ``machine``: the control process, and those of the engine."""
    none = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    none |= {"NoNewPrivs": 1, "Threads": 1, "Seccomp": 2}
    engine = status(machine)["engine"]["pid"]
    control, starter = sorted(set(machine.processes()) - {engine})
    for pid in (engine, starter):
        assert rights(pid) == none | {"Uid": NOBODY}
    network = {"CapPrm": NET_ADMIN, "CapEff": NET_ADMIN, "CapBnd": NET_ADMIN}
    assert rights(control) == none | network | {"Uid": user}


def first_reply_after(machine: Machine, address: str, act: Callable[[], None]) -> float:
    """Seconds from ``act`` to the next answered echo request of a stream of fifty a second."""
    child = machine.popen(["ping", "-n", "-D", "-i", "0.02", "-c", "200", address], stdout=subprocess.PIPE)
    assert child.stdout is not None
    answers = (line for line in child.stdout if "time=" in line)
    for _ in range(10):
        next(answers)
    began = time.time()
    act()
    for line in answers:
        sent = float(line[1 : line.index("]")]) - float(line.split("time=")[1].split()[0]) / 1000
        if sent > began:
            child.kill()
            return time.time() - began
    raise AssertionError("no answer any more")


def test_a_dead_engine_is_replaced_at_once_and_the_user_is_told(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    join_all(network)
    server, desk, boot = (network.node(name) for name in ("server", "desk", "boot"))
    assert_confined(server, 0)
    assert status(server)["confinement"] == {
        "user": 0,
        "capabilities": ["net_admin"],
        "file_system": True,
        "system_calls": True,
        "not_dropped": ["root"],
    }
    (bootstrap,) = boot.processes()
    held = {name: value for name, value in rights(bootstrap).items() if value}
    assert held == {"NoNewPrivs": 1, "Threads": 1, "Seccomp": 2}

    engine = status(server)["engine"]["pid"]
    took = first_reply_after(server, overlay(desk)[0], lambda: os.kill(engine, signal.SIGKILL))
    assert took < BACK_WITHIN_S
    assert status(server)["engine"]["restarts"] == 1
    assert "ended unexpectedly once, started again" in " ".join(server.cli("status").stdout.split())
    assert "the engine process was ended by signal 9; another one is started now" in log_text(server)
    assert "there is a new engine process" in log_text(server)
    assert_confined(server, 0)


def test_without_the_process_that_engines_come_from_the_node_ends(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    network_id = network.create("server")
    server = network.node("server")
    before = traces(server)
    child = server.popen(server.dhtvpn("join", network_id), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: server.cli("status", check=False).returncode == 0, "the node runs")
    engine = status(server)["engine"]["pid"]
    os.kill(sorted(set(server.processes()) - {engine})[1], signal.SIGKILL)
    said, complaint = child.communicate(timeout=10)
    assert child.returncode == 1
    assert "the engine process was ended by signal 9" in said
    assert "no other can be started: join again" in complaint and "Traceback" not in complaint
    eventually(lambda: traces(server) == before, "no trace")


def closed_above(path: Path) -> list[Path]:
    """The directories on the way to ``path`` that not everybody may pass."""
    return [above for above in path.parents if not above.stat().st_mode & stat.S_IXOTH]


def as_if_there_were_the_user(network: Network) -> str:
    """Shell commands for a mount namespace in which /etc/passwd has the user ``dhtvpn``, and in which it can
    reach the interpreter, wherever that is installed."""
    directory = network.entry.directory
    passwd, aside = directory / "passwd", directory / "aside"
    text = Path("/etc/passwd").read_text()
    passwd.write_text(f"{text}dhtvpn:x:{SOMEBODY}:{SOMEBODY}::/nonexistent:/usr/sbin/nologin\n")
    aside.mkdir(exist_ok=True)
    commands = [f"mount --bind {shlex.quote(str(passwd))} /etc/passwd"]
    base = Path(sys.base_prefix).resolve()
    for closed in closed_above(base)[-1:]:
        commands += [
            f"mount --bind {base} {aside}",
            f"mount -t tmpfs -o mode=755 tmpfs {closed}",
            f"mkdir -p {base}",
            f"mount --bind {aside} {base}",
        ]
    return " && ".join(commands)


def test_with_a_user_of_its_own_the_node_is_root_no_more(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    server, desk = network.node("server"), network.node("desk")
    join_all(network)
    before = status(server)["node"]
    server.cli("leave")
    eventually(lambda: not server.processes(), "it has ended")
    clean = traces(server)
    for closed in closed_above(server.state_dir / "networks"):
        closed.chmod(0o711)
    own = server.state_dir / "networks" / "lab"

    mounts = as_if_there_were_the_user(network)
    script = f'{mounts} && exec setpriv --bounding-set {UNIT_CAPABILITIES} -- "$@"'
    join = ["unshare", "--mount", "sh", "-c", script, "sh", *server.dhtvpn("join", "lab")]
    child = server.popen(join, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    eventually(lambda: server.cli("status", check=False).returncode == 0, "the node runs")
    wait_connected(server, 1)
    assert_confined(server, SOMEBODY)
    assert status(server)["confinement"]["not_dropped"] == []
    assert status(server)["node"] == before
    assert {path.lstat().st_uid for path in (own, *own.iterdir())} == {SOMEBODY}

    engine = status(server)["engine"]["pid"]
    took = first_reply_after(server, overlay(desk)[0], lambda: os.kill(engine, signal.SIGKILL))
    assert took < BACK_WITHIN_S
    assert_confined(server, SOMEBODY)
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=10)
    assert child.returncode == 0, said
    assert "there is a new engine process" in said and "cannot" not in said
    assert traces(server) == clean
    assert (own / "peers.json").stat().st_mtime > (own / "identity.json").stat().st_mtime

    network.join("server", "lab", bootstraps=())  # without that user: root again, with the same files
    wait_connected(server, 1)
    assert_confined(server, 0)
    assert status(server)["node"] == before
    assert {path.lstat().st_uid for path in (own, *own.iterdir())} == {0}
    assert pings(server, overlay(desk)[0]).returncode == 0
