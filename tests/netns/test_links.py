"""Emulated lines in the laboratory: how long, how lossy, how fast, and nothing left behind."""

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from dhtvpn.lab import namespaces, topologies
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Router, Topology

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("laboratory_possible")]

LabFactory = Callable[[Topology], Network]

SITES = Topology(
    "sites",
    "two public hosts, one behind a router, IPv6 beside IPv4",
    hosts=(
        Host("left", Role.PLAIN, ipv6=True),
        Host("right", Role.PLAIN, ipv6=True),
        Host("inner", Role.PLAIN, behind="home", ipv6=True),
    ),
    routers=(Router("home", ipv6=True),),
)
PACKETS_PER_S = 20_000
SO_RCVBUFFORCE = 33
"""asm-generic/socket.h; not in the socket module."""


def round_trips_ms(network: Network, source: str, address: object, count: int = 5) -> list[float]:
    done = network.node(source).run(["ping", "-n", "-c", str(count), "-i", "0.2", "-w", "10", str(address)])
    return [float(found) for found in re.findall(r"time=([0-9.]+) ms", done.stdout)]


def test_two_sites_are_four_delays_apart_over_both_families(lab: LabFactory) -> None:
    network = lab(replace(SITES, lines=Conditions(delay_s=0.01)))
    right = network.node("right")
    for source in ("left", "inner"):
        for address in (right.ipv4, right.ipv6):
            times = round_trips_ms(network, source, address)
            assert min(times) >= 40.0
            assert min(times) <= 55.0, "the first as well: no address request had to go before it"


def test_a_site_may_have_a_line_of_its_own(lab: LabFactory) -> None:
    far = replace(SITES.hosts[1], line=Conditions(delay_s=0.05))
    network = lab(replace(SITES, hosts=(SITES.hosts[0], far, SITES.hosts[2])))
    assert 100.0 <= min(round_trips_ms(network, "left", network.node("right").ipv4)) <= 115.0
    assert min(round_trips_ms(network, "inner", network.node("left").ipv4)) <= 10.0


def test_a_line_behind_a_router_has_its_own_conditions_only(lab: LabFactory) -> None:
    wifi = replace(SITES.hosts[2], line=Conditions(delay_s=0.02))
    network = lab(replace(SITES, hosts=(*SITES.hosts[:2], wifi)))
    assert 40.0 <= min(round_trips_ms(network, "inner", network.node("left").ipv4)) <= 60.0


def received(network: Network, count: int) -> set[int]:
    """Of ``count`` numbered datagrams from left to right, those that arrive."""
    left, right = network.node("left"), network.node("right")
    with right.socket() as sink, left.socket() as source:
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        sink.bind((str(right.ipv4), 5000))
        sink.settimeout(0.5)
        numbers = set()
        for number in range(count):
            source.sendto(number.to_bytes(4, "big"), (str(right.ipv4), 5000))
            if number % 50 == 49:
                time.sleep(0.001)  # no burst that a device's queue could not hold
        try:
            while True:
                numbers.add(int.from_bytes(sink.recv(100), "big"))
        except TimeoutError:
            return numbers


def test_loss_is_seeded(lab: LabFactory) -> None:
    lossy = replace(SITES, lines=Conditions(delay_s=0.005, loss=0.1))
    first, again, other = (received(lab(replace(lossy, seed=seed)), 1000) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert len(first) / 1000 == pytest.approx(0.81, abs=0.06), "two lines, a tenth lost on each"


def test_twenty_thousand_packets_per_second_pass(lab: LabFactory) -> None:
    """Packets of two lines: the emulator carries each twice."""
    network = lab(replace(SITES, lines=Conditions(delay_s=0.025)))
    count = PACKETS_PER_S // 2
    numbers = received(network, count)
    assert network.emulator is not None
    counters = network.emulator.end()
    assert counters.overflowed == 0
    assert len(numbers) >= 0.98 * count
    assert counters.carried >= 2 * 0.98 * count


def test_the_emulator_goes_with_the_laboratory(lab: LabFactory) -> None:
    network = lab(replace(topologies.PAIR, lines=Conditions(delay_s=0.001)))
    pids = network.node("internet").processes()
    assert pids, "the emulator runs in a namespace of the laboratory"
    network.tear_down()
    assert not [name for name in namespaces.all_of_ours() if name.startswith(network.entry.prefix)]


def test_members_find_each_other_over_slow_lossy_lines(lab: LabFactory) -> None:
    slow = Conditions(delay_s=0.02, jitter_s=0.005, loss=0.02, reordering=0.02)
    network = lab(replace(topologies.PAIR, lines=slow))
    network.start_bootstraps()
    network_id = network.create("laptop")
    network.join("laptop", network_id)
    network.join("phone", network_id)
    said = network.cli("phone", "wait", "--peers", "1", "--timeout", "20", "--json")
    assert json.loads(said)["peers"]
