"""One peer that floods, or whose path blocks, does not stop the others.

``server`` has two peers: ``desk``, whose TCP stream is watched, and ``late``, who misbehaves or is cut off.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from joined import join_all, overlay, pings
from streams import Meter, firewall, stream

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

TOPOLOGY = Topology(
    "fairness",
    "three members",
    hosts=(Host("boot", Role.BOOTSTRAP), Host("server"), Host("desk"), Host("late")),
)
UDP_PORT = 5202
SETTLE_S, WINDOW_S = 0.5, 1.0


@contextmanager
def datagrams(sender: Machine, receiver: Machine, megabits: int) -> Iterator[None]:
    """Plain UDP through the tunnel to a port where nobody listens: no feedback slows it down."""
    script = (
        "import socket, time\n"
        "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"out.connect(({overlay(receiver)[0]!r}, {UDP_PORT}))\n"
        "began, sent = time.monotonic(), 0\n"
        "while True:\n"
        f"    while sent * 9600 < (time.monotonic() - began) * {megabits}e6:\n"
        "        try: out.send(bytes(1200))\n"
        "        except OSError: pass\n"
        "        sent += 1\n"
        "    time.sleep(0.001)\n"
    )
    process = sender.popen(["python3", "-c", script])
    try:
        time.sleep(SETTLE_S)
        assert process.poll() is None
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def narrow(machine: Machine, towards: Machine) -> Iterator[None]:
    """A queue of its own, long and slow, for what ``machine`` sends to ``towards``: it holds more than a
    socket may have under way."""
    commands = (
        "qdisc add dev eth0 root handle 1: htb default 1",
        "class add dev eth0 parent 1: classid 1:1 htb rate 40gbit",
        "class add dev eth0 parent 1: classid 1:3 htb rate 1mbit ceil 1mbit",
        "qdisc add dev eth0 parent 1:3 bfifo limit 256000000",
    )
    for command in commands:
        machine.run(["tc", *command.split()])
    machine.run(
        ["nft", "-f", "-"],
        stdin="table inet narrow { chain out { type filter hook output priority 0; "
        f"ip daddr {towards.ipv4} meta priority set 0x00010003; }}; }}",
    )
    try:
        yield
    finally:
        machine.run(["nft", "delete", "table", "inet", "narrow"])
        machine.run(["tc", "qdisc", "del", "dev", "eth0", "root"])


@pytest.fixture
def members(lab: Lab) -> tuple[Machine, Machine, Machine]:
    """``server``, ``desk`` and ``late``, connected."""
    network = lab(TOPOLOGY)
    join_all(network)
    return network.node("server"), network.node("desk"), network.node("late")


def test_a_peer_that_floods_or_is_gone_does_not_stop_another(
    members: tuple[Machine, Machine, Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    server, desk, late = members
    told = {}
    with stream(desk, server):
        meter = Meter(server)
        told["alone"] = meter.mbit_s(WINDOW_S)
        with datagrams(late, server, 2000):
            with firewall(server, late):
                told["beside a flood that nft drops"] = meter.mbit_s(WINDOW_S)
            time.sleep(SETTLE_S)
            told["beside a peer's flood"] = meter.mbit_s(WINDOW_S)
    with stream(server, desk):
        meter = Meter(desk)
        told["sending alone"] = meter.mbit_s(WINDOW_S)
        late.run(["ip", "link", "set", "eth0", "down"])
        with datagrams(server, late, 500):
            told["while a peer is gone"] = meter.mbit_s(WINDOW_S)
    with capsys.disabled():
        print("\n" + ", ".join(f"{what} {number:.0f}" for what, number in told.items()) + " Mbit/s")  # noqa: T201
    assert told["beside a peer's flood"] > told["beside a flood that nft drops"] / 20
    assert told["while a peer is gone"] > told["sending alone"] / 3


def test_a_queue_that_is_full_towards_one_peer_does_not_stop_another(
    members: tuple[Machine, Machine, Machine],
) -> None:
    server, desk, late = members
    with stream(server, desk), narrow(server, late):
        meter = Meter(desk)
        time.sleep(SETTLE_S)
        before = meter.mbit_s(WINDOW_S)
        with datagrams(server, late, 500):
            time.sleep(1.0)
            assert meter.mbit_s(WINDOW_S) > before / 4
            assert pings(server, overlay(desk)[0]).returncode == 0
