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

    def start(self, family: int = 4, *, plain_device: str = "", **features: bool) -> None:
        """A node on each side; returns when both have sessions. ``features``: "trains", "aes", as both
        sides have heard of each other; the side ``plain_device`` has a device without virtio header."""
        for side in "ba":  # the responder first
            other = "ab"[side == "a"]
            arguments = {
                "initiator": side == "a",
                "local": OVERLAY[side],
                "remote": OVERLAY[other],
                "underlay_local": UNDERLAY[side][family == 6],
                "underlay_remote": UNDERLAY[other][family == 6],
                "vnet": side != plain_device,
                **features,
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


@pytest.mark.parametrize(
    ("underlay", "overlay", "plain_device", "features"),
    [
        (4, 4, "", {"trains": True, "aes": True}),
        (6, 6, "", {"trains": True, "aes": False}),
        (4, 6, "a", {"trains": False, "aes": True}),
    ],
)
def test_a_stream_arrives_intact_with_and_without_trains(
    room: Room, underlay: int, overlay: int, plain_device: str, features: dict[str, bool]
) -> None:
    room.start(underlay, plain_device=plain_device, **features)
    send_stream(room, "a", "b", 20_000_000, overlay)
    send_stream(room, "b", "a", 20_000_000, overlay)


def send_stream(room: Room, sender: str, receiver: str, size: int, overlay: int = 4) -> None:
    """Send ``size`` random bytes over TCP and compare hashes."""
    address = OVERLAY[receiver][overlay == 6]
    receive = (
        "import hashlib, socket\n"
        f"family = socket.AF_INET6 if {overlay == 6} else socket.AF_INET\n"
        f"server = socket.create_server(({address!r}, 7000), family=family)\n"
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


UDP_RECEIVER = """
import hashlib, socket, sys
address, count = sys.argv[1], int(sys.argv[2])
receiver = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
receiver.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS
receiver.bind((address, 7001))
receiver.settimeout(float(sys.argv[3]))
print("listening", flush=True)
digest, sizes, marks = hashlib.sha256(), set(), set()
try:
    for _ in range(count):
        data, ancillary, _, _ = receiver.recvmsg(65535, 64)
        digest.update(data)
        sizes.add(len(data))
        marks.update(value[0] & 3 for level, kind, value in ancillary if level == socket.IPPROTO_IP)
except TimeoutError:
    print("nothing")
else:
    print(digest.hexdigest(), sorted(sizes), sorted(marks))
"""
UDP_SENDER = """
import hashlib, socket, struct, sys
address, pieces, runs, mark = sys.argv[1], *map(int, sys.argv[2:])
sender = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
if mark:
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, mark)
digest = hashlib.sha256()
for run in range(runs):
    data = hashlib.shake_256(bytes([run])).digest(1000 * pieces)
    digest.update(data)
    option = [(17, 103, struct.pack("=H", 1000))] if pieces > 1 else []  # UDP_SEGMENT
    sender.sendmsg([data], option, 0, (address, 7001))
print(digest.hexdigest())
"""


def send_udp(
    room: Room, overlay: int, *, pieces: int, runs: int, mark: int = 0, timeout_s: float = 5
) -> tuple[str, str]:
    """Runs of datagrams of 1,000 bytes from a to b: what was sent (a hash), and what came (hash, lengths,
    ECN bits)."""
    address = OVERLAY["b"][overlay == 6]
    count = str(pieces * runs)
    server = room.background("b", sys.executable, "-c", UDP_RECEIVER, address, count, str(timeout_s))
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        try:
            numbers = (str(pieces), str(runs), str(mark))
            sent = room.exec("a", sys.executable, "-c", UDP_SENDER, address, *numbers)
            return sent.strip(), server.stdout.read().strip()
        finally:
            server.kill()


@pytest.mark.parametrize("trains", [True, False])
def test_runs_of_datagrams_inside_the_tunnel_arrive_whole(room: Room, trains: bool) -> None:
    room.start(trains=trains, aes=trains)
    for overlay in (4, 6):
        marks = [0] if overlay == 4 else []
        sent, came = send_udp(room, overlay, pieces=20, runs=5)
        assert came == f"{sent} [1000] {marks}"


@pytest.mark.parametrize("trains", [True, False])
def test_a_router_tells_the_programs_of_congestion(room: Room, trains: bool) -> None:
    """The mark that it sets reaches the inner packet (RFC 6040); what does not know ECN is dropped."""
    room.start(trains=trains, aes=True)
    sent, came = send_udp(room, 4, pieces=10, runs=1, mark=2)
    assert came == f"{sent} [1000] [2]"
    for command in (
        "add table ip router",
        "add chain ip router marks { type filter hook prerouting priority -300; }",
        "add rule ip router marks udp dport 5555 ip ecn set ce",
    ):
        room.exec("b", "nft", command)
    sent, came = send_udp(room, 4, pieces=10, runs=1, mark=2)
    assert came == f"{sent} [1000] [3]"
    assert send_udp(room, 4, pieces=1, runs=1, timeout_s=0.3)[1] == "nothing"


def test_throughput_is_shown(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    room.start(trains=True, aes=True)
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
        print(f"\nengine to engine, one TCP stream, trains, AES-256-GCM: {megabits:.0f} Mbit/s")  # noqa: T201
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
