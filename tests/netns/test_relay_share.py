"""A member that relays at full rate keeps a share of its own for its own traffic.

``laptop`` and ``phone`` talk through a member whose cap is far above what it can relay, while ``server`` has
a TCP stream with ``desk``. All engines share the processors of one machine, which members do not elsewhere.
So what ``server`` has while it relays is held against what it has while ``helper`` relays the same.
"""

import time
from collections.abc import Callable

import pytest
from joined import eventually, overlay, peer_of, pings, status
from streams import Meter, stream

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import SYMMETRIC
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Router, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

TOPOLOGY = Topology(
    "relay-share",
    "two public members that may relay between two others, and a third to talk with",
    hosts=(
        Host("boot", Role.BOOTSTRAP),
        Host("laptop", behind="laptop-home"),
        Host("phone", behind="phone-home"),
        Host("server"),
        Host("helper"),
        Host("desk"),
    ),
    routers=(Router("laptop-home", SYMMETRIC), Router("phone-home", SYMMETRIC)),
)
UNCAPPED = ("--relay-rate", "100000")
SETTLE_S, WINDOW_S, WINDOWS = 1.0, 1.0, 2
LEAST_SHARE = 1 / 3


def joined(network: Network, relaying: str) -> dict[str, Machine]:
    """All connected; ``laptop`` and ``phone`` reach each other through the one called ``relaying``."""
    network.start_bootstraps()
    network_id = network.create("server")
    machines = {host.name: network.node(host.name) for host in TOPOLOGY.members}
    for name in machines:
        network.join(name, network_id, *(UNCAPPED if name == relaying else ("--no-relay",)))

    def through_it(one: str, other: str) -> bool:
        peers = {peer["name"]: peer for peer in status(machines[one])["peers"]}
        return other in peers and peers[other]["relay"] == {"kind": "member", "members": [relaying]}

    eventually(lambda: through_it("laptop", "phone"), "relayed", 20)
    eventually(lambda: through_it("phone", "laptop"), "on both sides", 20)
    eventually(lambda: "desk" in [peer["name"] for peer in status(machines["server"])["peers"]], "known", 20)
    assert pings(machines["server"], overlay(machines["desk"])[0]).returncode == 0
    assert peer_of(machines["server"], "desk")["path"] == "direct"
    return machines


def mean_mbit_s(meter: Meter) -> float:
    return sum(meter.mbit_s(WINDOW_S) for _ in range(WINDOWS)) / WINDOWS


def measure(network: Network, relaying: str) -> dict[str, dict[str, float]]:
    """Mbit/s, for each direction of the own stream of ``server``: that alone and beside the relayed one, and
    the relayed one."""
    machines = joined(network, relaying)
    server, desk, laptop, phone = (machines[name] for name in ("server", "desk", "laptop", "phone"))
    told: dict[str, dict[str, float]] = {}
    for direction, one, other in (("sends", server, desk), ("receives", desk, server)):
        with stream(one, other):
            own, relayed = Meter(other), Meter(phone)
            time.sleep(SETTLE_S)
            alone = mean_mbit_s(own)
            with stream(laptop, phone):
                time.sleep(SETTLE_S)
                before, began = relayed.received(), time.monotonic()
                beside = mean_mbit_s(own)
                other_mbit_s = (relayed.received() - before) * 8e-6 / (time.monotonic() - began)
        told[direction] = {"alone": alone, "beside": beside, "relayed": other_mbit_s}
    for machine in machines.values():
        machine.kill_all()
    return told


def test_who_relays_at_full_rate_keeps_a_third_of_its_own(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    by_other = measure(lab(TOPOLOGY), "helper")
    by_itself = measure(lab(TOPOLOGY), "server")
    shares = {way: by_itself[way]["beside"] / by_other[way]["beside"] for way in by_other}
    with capsys.disabled():
        for who, directions in (("helper", by_other), ("server", by_itself)):
            for direction, told in directions.items():
                figures = ", ".join(f"{what} {number:.0f}" for what, number in told.items())
                print(f"\nserver {direction}, {who} relays: {figures} Mbit/s", end="")  # noqa: T201 - the figures
        print("; shares", ", ".join(f"{way} {share:.0%}" for way, share in shares.items()))  # noqa: T201
    for told in by_itself.values():
        assert told["relayed"] > 10, "nothing to starve of: the relayed stream does not run"
    assert min(shares.values()) >= LEAST_SHARE
