"""What a connected peer costs the line at rest: whole IP packets, counted by the kernel at the members.

Counted apart: the directory's own datagrams, for which docs/performance.md has another limit, and what stays
in the LAN: multicast, and questions to the router. In virtual time: tests/unit/node/test_path_cost.py.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from joined import eventually, join_all, overlay, peer_of, pings

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import SYMMETRIC
from dhtvpn.lab.network import Network
from dhtvpn.lab.topologies import PAIR, behind_nats
from dhtvpn.lab.topology import Host, Role, Topology

pytestmark = pytest.mark.netns

LIMIT = 25.0
"""Octets per second, each way."""
SETTLED_S = 900.0
"""Until then idle times of a path grow in steps (node/keepalive.py), and so do the pauses between attempts at
a direct one (node/connector.py)."""
MEASURED_S = 1200.0
"""Ten renewals of the session's keys, and one or two attempts."""

NATS = behind_nats(
    "rest-relayed", "a pair that no direct path joins", {"laptop": SYMMETRIC, "phone": SYMMETRIC}
)
RELAYED = replace(NATS, hosts=(Host("boot", Role.BOOTSTRAP, relay=True), *NATS.members))

KINDS = {
    "discovery": "udp dport != 0 @th,64,8 { 0xd7, 0xd8 }",
    "router": "udp dport { 1900, 5350, 5351 }",
    "lan": "ip daddr 224.0.0.0/4",
    "lan6": "ip6 daddr ff00::/8",
    "relay_service": "udp dport != 0 @th,64,8 0xdb",
    "relayed": "udp dport != 0 @th,64,8 { 0xd9, 0xda }",
    "stun": "udp dport != 0 @th,96,32 0x2112a442",
    "tunnel": "udp dport != 0 @th,64,8 { 1, 2, 3, 4, 5, 6, 7 }",
    "other": "meta l4proto { udp, tcp, icmp, ipv6-icmp }",
}
"""What a packet is, by its first octets (docs/protocol/one-port.md); the first that fits counts. Of
what goes to a multicast group the kernel hands this machine a copy."""
NOT_PATHS = {"discovery", "router", "lan", "lan6"}


def count_everything(machine: Machine) -> None:
    """Have the kernel count what goes out and comes in at the machine's uplink, by kind."""
    assert machine.link is not None
    interface = machine.link.interface
    counters = "\n".join(f"counter {kind}_{way} {{ }}" for kind in KINDS for way in ("sent", "got"))
    chains = ""
    for way, hook, name in (("sent", "output", "oifname"), ("got", "input", "iifname")):
        rules = "\n".join(f"{match} counter name {kind}_{way} accept" for kind, match in KINDS.items())
        chains += (
            f"chain {way} {{\ntype filter hook {hook} priority 0\n{name} != {interface} accept\n{rules}\n}}\n"
        )
    machine.run(["nft", "-f", "-"], stdin=f"table inet cost {{\n{counters}\n{chains}}}\n")


def counted(machine: Machine) -> dict[str, int]:
    """Octets since the start, by kind and way."""
    listed = json.loads(machine.run(["nft", "-j", "list", "counters", "table", "inet", "cost"]).stdout)
    return {
        part["counter"]["name"]: part["counter"]["bytes"] for part in listed["nftables"] if "counter" in part
    }


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("topology", "path"), [(PAIR, "direct"), (RELAYED, "relayed")], ids=["direct", "relayed"]
)
def test_a_connected_peer_at_rest(
    lab: Callable[[Topology], Network], topology: Topology, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is not the directory's: sessions, pings, checks, gossip, registrations at relays."""
    network = lab(topology)
    join_all(network)
    members = [network.node(name) for name in ("laptop", "phone")]
    eventually(lambda: peer_of(members[0], "phone")["path"] == path, path, 15)
    for machine in members:
        count_everything(machine)
    time.sleep(SETTLED_S)  # not to wait for something: what is measured is time itself
    before = [counted(machine) for machine in members]
    time.sleep(MEASURED_S)
    after = [counted(machine) for machine in members]
    rates = [
        {name: round((now[name] - then[name]) / MEASURED_S, 2) for name in now}
        for then, now in zip(before, after, strict=True)
    ]
    with capsys.disabled():
        print(f"\n{path}: {json.dumps(rates)}")  # noqa: T201 - the figures are what this is run for
    for rate in rates:
        for way in ("sent", "got"):
            cost = sum(rate[f"{kind}_{way}"] for kind in KINDS.keys() - NOT_PATHS)
            assert 0 < cost <= LIMIT, (path, way, rate)
    assert peer_of(members[0], "phone")["path"] == path
    assert pings(members[0], overlay(members[1])[0]).returncode == 0, "still there"
