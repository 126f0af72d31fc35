"""The path MTU on real links: found, used, told to the local TCP, and followed when it shrinks."""

import hashlib
import json
import os
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import pytest
from joined import eventually, join_all, overlay, peer_of, pings

from dhtvpn.lab import topologies
from dhtvpn.lab.addressing import LAN_BRIDGE
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import PUBLIC_SEGMENT, Host, Role, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

IPV6_PAIR = Topology(
    "ipv6-pair",
    "two public members with IPv6 alone",
    hosts=(
        Host("boot", Role.BOOTSTRAP, ipv4=False, ipv6=True),
        Host("server", ipv4=False, ipv6=True),
        Host("desk", ipv4=False, ipv6=True),
    ),
)
PIECE = 1 << 16
PAUSE_S = 0.01
"""Between pieces: the transfer lasts as long as the test wants, and leaves the machine to others."""
LONGEST_GAP_S = 6.0
"""A transfer may stand still this long: 2 s until the next confirmation, its rounds, and TCP's own timer,
which has doubled a few times by then. Measured: 1.5 s over IPv6, 0.2 s over IPv4."""


def set_mtu(network: Network, name: str, mtu: int) -> None:
    """Both ends of the link of machine ``name``."""
    link = network.plan.link(name)
    network.node(name).run(["ip", "link", "set", "dev", link.interface, "mtu", str(mtu)])
    network.node(link.upstream).run(["ip", "link", "set", "dev", link.upstream_port, "mtu", str(mtu)])


def filter_icmp(machine: Machine) -> None:
    """Routers say nothing about packets that are too big."""
    rules = (
        "table inet silence { chain output { type filter hook output priority 0;"
        " icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }\n"
    )
    machine.run(["nft", "-f", "-"], stdin=rules)


def mtu_of(machine: Machine, name: str) -> int | None:
    mtu = peer_of(machine, name)["mtu"]
    return None if mtu is None else int(mtu)


def route_mtu(machine: Machine, address: str) -> int:
    """What the kernel holds packets to ``address`` to: its route's MTU, or the interface's."""
    (route,) = json.loads(machine.run(["ip", "-json", "route", "get", address]).stdout)
    for metrics in route.get("metrics", ()):
        if "mtu" in metrics:
            return int(metrics["mtu"])
    (link,) = json.loads(machine.run(["ip", "-json", "link", "show", "dev", route["dev"]]).stdout)
    return int(link["mtu"])


def mtus_are(one: Machine, other: Machine, mtu: int) -> None:
    eventually(
        lambda: mtu_of(one, other.name) == mtu_of(other, one.name) == mtu,
        f"path MTU {mtu}, has {mtu_of(one, other.name)} and {mtu_of(other, one.name)}",
    )


class Transfer:
    """Random bytes over TCP through the tunnel, until :meth:`finish`."""

    def __init__(self, sender: Machine, receiver: Machine, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._ending = threading.Event()
        self._listener = receiver.socket(family, socket.SOCK_STREAM)
        self._listener.bind((address, 0))
        self._listener.listen(1)
        self._out = sender.socket(family, socket.SOCK_STREAM)
        self.sums: dict[str, str] = {}
        self.received = 0
        self.longest_gap_s = 0.0
        self._threads = [threading.Thread(target=self._receive), threading.Thread(target=self._send)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failed: object) -> None:
        """End it; every byte must have arrived."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        if failed == (None, None, None):
            assert self.sums["sent"] == self.sums["received"]
            assert self.longest_gap_s < LONGEST_GAP_S

    def _send(self) -> None:
        digest = hashlib.blake2b()
        with self._out as out:
            out.settimeout(30)
            out.connect(self._listener.getsockname()[:2])
            while not self._ending.is_set():
                piece = os.urandom(PIECE)
                digest.update(piece)
                out.sendall(piece)
                time.sleep(PAUSE_S)
        self.sums["sent"] = digest.hexdigest()

    def _receive(self) -> None:
        digest = hashlib.blake2b()
        with self._listener as listener:
            listener.settimeout(30)
            connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            before = time.monotonic()
            while piece := connection.recv(PIECE):
                now = time.monotonic()
                self.longest_gap_s, before = max(self.longest_gap_s, now - before), now
                digest.update(piece)
                self.received += len(piece)
        self.sums["received"] = digest.hexdigest()

    def moves(self) -> None:
        """Return when a good part more has arrived."""
        goal = self.received + 20 * PIECE
        eventually(lambda: self.received > goal, "the transfer goes on", 3 * LONGEST_GAP_S)


@contextmanager
def inner_transfers(sender: Machine, receiver: Machine) -> Iterator[Callable[[], None]]:
    """One over IPv4 and one over IPv6 at the same time. What is given returns when both have moved on."""
    ipv4, ipv6 = overlay(receiver)
    with Transfer(sender, receiver, ipv4) as one, Transfer(sender, receiver, ipv6) as other:

        def all_move() -> None:
            one.moves()
            other.moves()

        yield all_move


PLAIN = Topology("plain", "a machine to make devices on", hosts=(Host("left", Role.PLAIN),))
ROUTES = """
    import asyncio, subprocess, sys
    from ipaddress import ip_interface, ip_network
    from dhtvpn.system import links, routes
    from dhtvpn.system.tun import open_tun

    async def main(addresses):
        tun = open_tun("dv0")
        four, six, other = map(ip_network, ("10.9.0.2/32", "fd00::2/128", "10.9.0.3/32"))
        await links.configure("dv0", [ip_interface(address) for address in addresses], 1420)
        await routes.set_mtus("dv0", 8940, {four: 1220, six: 1200, other: 1440})
        say()
        await routes.set_mtus("dv0", 1420, {six: 1400}, [four, other, ip_network("fd00::3/128")])
        say()

    def say():
        for family in "-4", "-6":
            shown = subprocess.run(["ip", family, "route"], capture_output=True, text=True, check=True).stdout
            print(*(line.strip() for line in shown.splitlines() if " mtu " in line), sep="; ")
        print(open("/sys/class/net/dv0/mtu").read().strip())

    asyncio.run(main(sys.argv[1:]))
"""


def test_routes_with_an_mtu_come_and_go(lab: Lab) -> None:
    left = lab(PLAIN).node("left")

    def lines(*addresses: str) -> list[str]:
        script = [sys.executable, "-c", textwrap.dedent(ROUTES), *addresses]
        return [line.replace(" proto static", "") for line in left.run(script).stdout.splitlines()]

    four = "10.9.0.2 dev dv0 scope link mtu 1220; 10.9.0.3 dev dv0 scope link mtu 1440"
    six = "fd00::2 dev dv0 metric 1024 mtu {} pref medium"
    assert lines("10.9.0.1/16", "fd00::1/64") == [
        *(four, six.format("1280 advmss 1140"), "8940"),
        *("", six.format(1400), "1420"),
    ]
    left.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])
    assert lines("10.9.0.1/16") == [four, "", "8940", "", "", "1420"]


def test_a_jumbo_path_is_used_and_a_narrow_peer_beside_it(lab: Lab) -> None:
    network = lab(topologies.DEMO)
    set_mtu(network, "server", 9000)
    set_mtu(network, "home", 9000)
    set_mtu(network, "laptop", 9000)
    network.node("home").run(["ip", "link", "set", "dev", LAN_BRIDGE, "mtu", "9000"])
    join_all(network)
    server, laptop, phone = (network.node(name) for name in ("server", "laptop", "phone"))
    mtus_are(server, laptop, 8940)
    mtus_are(server, phone, 1440)
    for address in overlay(laptop):
        assert pings(server, address, "-M", "do", "-s", "8800").returncode == 0
        eventually(lambda address=address: route_mtu(server, address) == 8940, "the route")  # type: ignore[misc]
    for address, headers in zip(overlay(phone), (28, 48), strict=True):
        eventually(lambda address=address: route_mtu(server, address) == 1440, "the route")  # type: ignore[misc]
        assert pings(server, address, "-M", "do", "-s", str(1440 - headers)).returncode == 0
        too_long = pings(server, address, "-M", "do", "-s", str(1441 - headers))
        assert too_long.returncode != 0 and "1440" in too_long.stdout + too_long.stderr
    assert "MTU 8940" in server.cli("peers").stdout
    with Transfer(server, laptop, overlay(laptop)[0]) as transfer:
        transfer.moves()
    server.cli("leave")
    eventually(lambda: "dhtvpn0" not in server.interfaces(), "the interface is gone")
    assert "mtu" not in server.run(["ip", "route", "show", "table", "all"]).stdout


def test_transfers_go_on_when_the_path_shrinks(lab: Lab) -> None:
    """Outer IPv4, through two routers that say nothing."""
    network = lab(topologies.PAIR)
    join_all(network)
    laptop, phone = network.node("laptop"), network.node("phone")
    mtus_are(laptop, phone, 1440)
    for name in (PUBLIC_SEGMENT, "laptop-home", "phone-home"):
        filter_icmp(network.node(name))
    with inner_transfers(laptop, phone) as all_move:
        all_move()
        set_mtu(network, "laptop-home", 1280)
        all_move()
        eventually(lambda: mtu_of(laptop, "phone") == 1220, "the new path MTU")
        all_move()


def test_a_black_hole_does_not_end_transfers(lab: Lab) -> None:
    """Outer IPv6: nobody fragments on the way, and nobody says that a packet is too big."""
    network = lab(IPV6_PAIR)
    join_all(network)
    server, desk = network.node("server"), network.node("desk")
    mtus_are(server, desk, 1420)
    filter_icmp(network.node(PUBLIC_SEGMENT))
    with inner_transfers(server, desk) as all_move:
        all_move()
        port = network.plan.link("desk").upstream_port
        network.node(PUBLIC_SEGMENT).run(["ip", "link", "set", "dev", port, "mtu", "1280"])
        all_move()
        assert mtu_of(server, "desk") == 1200
    ipv4, ipv6 = overlay(desk)
    assert pings(server, ipv6, "-s", str(1280 - 48)).returncode == 0, "IPv6 has a right to 1,280 bytes"
    assert pings(server, ipv4, "-M", "do", "-s", str(1200 - 28)).returncode == 0
    too_long = pings(server, ipv4, "-M", "do", "-s", str(1201 - 28))
    assert too_long.returncode != 0 and "mtu=1200" in too_long.stdout + too_long.stderr
