"""Two engines with fixed keys in two namespaces on a veth pair: the data plane on a real kernel.

The namespaces are this file's own, made for one test and removed after it. A small script of ours runs in
each, as the control process would.
"""

import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhtvpn.system.privileges import has_net_admin

pytestmark = [pytest.mark.netns, pytest.mark.skipif(not has_net_admin(), reason="needs root")]

SCRIPT = Path(__file__).with_name("engine_node.py")
OVERLAY = {"a": ("10.88.0.1", "fd88::1"), "b": ("10.88.0.2", "fd88::2")}
UNDERLAY = {"a": ("10.99.0.1", "fd99::1"), "b": ("10.99.0.2", "fd99::2")}
STREAM_BYTES = 50_000_000


def run(*command: str, check: bool = True, timeout_s: float = 60) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


class Room:
    """Two namespaces, one veth pair, a node in each."""

    def __init__(self) -> None:
        mark = f"{os.getpid()}-{secrets.token_hex(3)}"
        self.names = {side: f"dvt-engine-{mark}-{side}" for side in "ab"}
        self.nodes: dict[str, subprocess.Popen[str]] = {}

    def build(self) -> None:
        for name in self.names.values():
            run("ip", "netns", "add", name)
        run(
            *("ip", "link", "add", "eth0", "netns", self.names["a"]),
            *("type", "veth", "peer", "name", "eth0", "netns", self.names["b"]),
        )
        for side, name in self.names.items():
            v4, v6 = UNDERLAY[side]
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "addr", "add", f"{v4}/24", "dev", "eth0")
            run("ip", "-n", name, "addr", "add", f"{v6}/64", "dev", "eth0", "nodad")
            run("ip", "-n", name, "link", "set", "eth0", "up")

    def start(self, family: int = 4) -> None:
        """A node on each side; returns when both have sessions."""
        for side in "ba":  # the responder first
            other = "ab"[side == "a"]
            arguments = {
                "initiator": side == "a",
                "local": OVERLAY[side],
                "remote": OVERLAY[other],
                "underlay_local": UNDERLAY[side][family == 6],
                "underlay_remote": UNDERLAY[other][family == 6],
            }
            self.nodes[side] = subprocess.Popen(
                ["ip", "netns", "exec", self.names[side], sys.executable, SCRIPT, json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.wait_for(side, "up")

    def wait_for(self, side: str, word: str) -> str:
        """The next line of a node that starts with ``word``."""
        stdout = self.nodes[side].stdout
        assert stdout is not None
        for line in stdout:
            if line.startswith(word):
                return line
        raise AssertionError(f"node {side} ended before it said {word}")

    def exec(self, side: str, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.names[side], *command, check=check)

    def background(self, side: str, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[side], *command], stdout=subprocess.PIPE, text=True
        )

    def remove(self) -> None:
        for node in self.nodes.values():
            node.kill()  # kill -9: nothing may stay behind
            node.communicate()
        for name in self.names.values():
            if name in run("ip", "netns", "list"):
                run("ip", "netns", "delete", name)


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    try:
        made.build()
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize("family", [4, 6])
def test_full_size_packets_of_both_families_pass(room: Room, family: int) -> None:
    room.start(family)
    for address, headers in (("10.88.0.2", 28), ("fd88::2", 48)):
        for size in (8, 1280 - headers, 1420 - headers):
            room.exec("a", "ping", "-c", "3", "-i", "0.05", "-W", "3", "-M", "do", "-s", str(size), address)


def test_larger_packets_get_an_answer(room: Room) -> None:
    room.start()
    for address, size in (("10.88.0.2", 1393), ("fd88::2", 1373)):
        command = ("ping", "-c", "1", "-W", "3", "-M", "do", "-s", str(size), address)
        said = room.exec("a", "sh", "-c", " ".join(command) + " 2>&1", check=False)
        assert "message too long, mtu: 1420" in said.lower().replace("mtu=", "mtu: ")


def test_nothing_is_lost_on_a_narrow_path(room: Room) -> None:
    """The underlay carries 1400 bytes: outer datagrams of full size leave in fragments, told or not."""
    for side in "ab":
        run("ip", "-n", room.names[side], "link", "set", "eth0", "mtu", "1400")
    room.start()
    for option in ("do", "dont"):
        room.exec("a", "ping", "-c", "2", "-i", "0.1", "-W", "3", "-M", option, "-s", "1392", "10.88.0.2")
    send_stream(room, "b", "a", 5_000_000)


def test_nobody_at_an_address_is_told(room: Room) -> None:
    room.start()
    said = room.exec("a", "ping", "-c", "1", "-W", "2", "10.88.0.77", check=False)
    assert "Destination Host Unreachable" in said
    said = room.exec("a", "ping", "-c", "1", "-W", "2", "fd88::77", check=False)
    assert "Address unreachable" in said


def test_a_stream_arrives_intact_in_both_directions(room: Room) -> None:
    room.start()
    send_stream(room, "a", "b", STREAM_BYTES)
    send_stream(room, "b", "a", STREAM_BYTES)


def send_stream(room: Room, sender: str, receiver: str, size: int) -> None:
    """Send ``size`` random bytes over TCP and compare hashes."""
    address = OVERLAY[receiver][0]
    receive = (
        "import hashlib, socket\n"
        f"server = socket.create_server(({address!r}, 7000))\n"
        "print('listening', flush=True)\n"
        "connection, _ = server.accept()\n"
        "digest = hashlib.sha256()\n"
        "while data := connection.recv(1 << 18): digest.update(data)\n"
        "print(digest.hexdigest())\n"
    )
    seed = secrets.token_bytes(16)
    data = hashlib.shake_256(seed).digest(size)
    send = (
        "import hashlib, socket, sys\n"
        f"data = hashlib.shake_256(bytes.fromhex({seed.hex()!r})).digest({size})\n"
        f"with socket.create_connection(({address!r}, 7000), timeout=20) as stream: stream.sendall(data)\n"
    )
    server = room.background(receiver, sys.executable, "-c", receive)
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        try:
            room.exec(sender, sys.executable, "-c", send)
            assert server.stdout.read().strip() == hashlib.sha256(data).hexdigest()
        finally:
            server.kill()


def test_throughput_is_shown(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    room.start()
    server = room.background("b", "iperf3", "-s", "-1", "-B", "10.88.0.2", "--forceflush")
    with server:
        assert server.stdout is not None
        for line in server.stdout:
            if "listening" in line:
                break
        report = json.loads(room.exec("a", "iperf3", "-c", "10.88.0.2", "-t", "3", "-J"))
        server.kill()
    megabits = report["end"]["sum_received"]["bits_per_second"] / 1e6
    with capsys.disabled():
        print(f"\nengine to engine, one TCP stream, plain packets: {megabits:.0f} Mbit/s")  # noqa: T201
    assert megabits > 0


def test_nothing_is_left_after_kill_9(room: Room) -> None:
    before = state(room, "a")
    room.start()
    assert state(room, "a") != before
    node = room.nodes.pop("a")
    node.kill()
    node.communicate()
    deadline = time.monotonic() + 5
    while state(room, "a") != before:
        assert time.monotonic() < deadline, state(room, "a")
        time.sleep(0.02)


def state(room: Room, side: str) -> str:
    """Links, routes, rules and processes of a namespace."""
    name = room.names[side]
    return "\n".join(
        (
            run("ip", "-n", name, "-o", "-br", "link"),
            run("ip", "-n", name, "route", "show", "table", "all"),
            run("ip", "-n", name, "-6", "route", "show", "table", "all"),
            run("ip", "-n", name, "rule"),
            run("ip", "netns", "pids", name),
        )
    )


def test_a_device_that_is_deleted_ends_the_engine_with_a_sentence(room: Room) -> None:
    room.start()
    room.exec("a", "ip", "link", "delete", "dv0")
    assert "the network interface was removed" in room.wait_for("a", "log")
    assert room.wait_for("a", "exit").split() == ["exit", "1"]
