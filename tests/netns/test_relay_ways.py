"""Ways through members: over two of them, and away from one that delays or drops."""

import re
import time
from collections.abc import Callable

import pytest
from joined import eventually, overlay, peer_of, pings, status
from test_relay import answers_of, gaps, tcp_stream

from dhtvpn.lab import namespaces
from dhtvpn.lab.link import Wire
from dhtvpn.lab.link_process import LinkProcess
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import SYMMETRIC
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import PUBLIC_SEGMENT, Host, Role, Router, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

CHAIN = Topology(
    "chain",
    "four members in a row, each of which reaches its neighbours alone",
    hosts=(Host("boot", Role.BOOTSTRAP), Host("ann"), Host("ben"), Host("cleo"), Host("dan")),
)
APART = (("ann", "cleo"), ("ann", "dan"), ("ben", "dan"))
NEIGHBOURS = (("ann", "ben"), ("ben", "cleo"), ("cleo", "dan"))

TWO_RELAYS = Topology(
    "two-relays",
    "two members, either of which may relay between two others",
    hosts=(
        Host("boot", Role.BOOTSTRAP),
        Host("laptop", behind="laptop-home"),
        Host("phone", behind="phone-home"),
        Host("east"),
        Host("west"),
    ),
    routers=(Router("laptop-home", SYMMETRIC), Router("phone-home", SYMMETRIC)),
)
NEXT_HOP = "192.0.2.1"
"""Stands for the far end of an emulated line; nobody has it (RFC 5737)."""

AWAY_FROM_DELAY_S = 12.0
"""Four rounds of measuring: one is enough where it comes at once."""
AWAY_FROM_LOSS_S = 45.0
"""For both sides, in turn. Each of fifteen rounds loses its ping with a chance of more than a third."""


def through(machine: Machine, peer: str) -> list[str] | None:
    """The members that packets to ``peer`` go through; None where that is not so."""
    for told in status(machine)["peers"]:
        if told["name"] == peer and told["relay"] and told["relay"]["kind"] == "member":
            return list(told["relay"]["members"])
    return None


def separate(network: Network) -> None:
    """Members that are no neighbours reach each other no more; what neighbours send each other is counted."""
    address = {host.name: network.node(host.name).ipv4 for host in CHAIN.members}
    rules = [
        f"ip saddr {address[one]} ip daddr {address[other]} {verb}\n"
        for pairs, verb in ((APART, "drop"), (NEIGHBOURS, "counter"))
        for pair in pairs
        for one, other in (pair, pair[::-1])
    ]
    chain = f"chain forward {{\ntype filter hook forward priority 0;\n{''.join(rules)}}}\n"
    network.node(PUBLIC_SEGMENT).run(["nft", "-f", "-"], stdin=f"table ip apart {{\n{chain}}}\n")


def octets_between(network: Network) -> list[int]:
    """Of each two neighbours, both ways, in the order of NEIGHBOURS."""
    listed = network.node(PUBLIC_SEGMENT).run(["nft", "list", "table", "ip", "apart"]).stdout
    counted = [int(octets) for octets in re.findall(r"counter packets \d+ bytes (\d+)", listed)]
    return [there + back for there, back in zip(counted[::2], counted[1::2], strict=True)]


def test_packets_pass_two_members_and_never_go_in_a_circle(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    network = lab(CHAIN)
    separate(network)
    network.start_bootstraps()
    network_id = network.create("ann")
    for host in CHAIN.members:
        network.join(host.name, network_id)
    ann, dan = network.node("ann"), network.node("dan")
    took = eventually(lambda: through(ann, "dan") == ["ben", "cleo"], "through two members", 20)
    took += eventually(lambda: through(dan, "ann") == ["cleo", "ben"], "and back", 20)
    for address in overlay(dan):
        assert pings(ann, address).returncode == 0
    before = octets_between(network)
    with tcp_stream(ann, dan) as (sent, came):
        time.sleep(3)
    assert b"".join(sent) == b"".join(data for _, data in came)
    carried = [now - then for now, then in zip(octets_between(network), before, strict=True)]
    payload = sum(map(len, sent))
    with capsys.disabled():
        print(f"\nrouted after {took:.1f} s; {payload} octets sent, over the three lines: {carried}")  # noqa: T201
    for octets in carried:  # once over each line, with headers, acknowledgements and pings
        assert payload < octets < 1.7 * payload
    for name in ("ben", "cleo"):
        drops = status(network.node(name))["drops"]
        assert not [name for name in drops if name in ("dataplane.relay_hops", "dataplane.relay_nested")]


def worsen(network: Network, name: str, conditions: Conditions) -> None:
    """From now on whatever comes from or goes to ``name`` passes an emulated line.

    The line begins and ends on the public segment, so that no member's own network changes: nobody is told.
    """
    internet, machine = network.node(PUBLIC_SEGMENT), network.node(name)
    assert machine.link is not None
    wire = Wire(internet.namespace, "near", internet.namespace, "far", conditions, seed=7)
    LinkProcess(internet, [wire])
    hardware = {}
    for device in ("near", "far"):
        internet.run(["ip", "link", "set", device, "up"])
        hardware[device] = internet.run(["cat", f"/sys/class/net/{device}/address"]).stdout.strip()
    for device in ("all", "near", "far", machine.link.upstream_port):
        namespaces.sysctl(internet.namespace, {f"net.ipv4.conf.{device}.rp_filter": 0})
    namespaces.ip_batch(
        internet.namespace,
        [
            f"neighbour replace {NEXT_HOP} lladdr {hardware['far']} dev near",
            f"neighbour replace {NEXT_HOP} lladdr {hardware['near']} dev far",
            f"route add default via {NEXT_HOP} dev near table 100 onlink",
            f"route add default via {NEXT_HOP} dev far table 101 onlink",
            "rule add pref 10 iif near lookup main",
            "rule add pref 11 iif far lookup main",
            f"rule add pref 20 iif {machine.link.upstream_port} lookup 100",
            f"rule add pref 21 to {machine.ipv4} lookup 101",
        ],
    )


@pytest.mark.parametrize(
    ("conditions", "within_s"),
    [
        pytest.param(Conditions(delay_s=0.15), AWAY_FROM_DELAY_S, id="delays 300 ms"),
        pytest.param(Conditions(loss=1 - 0.8**0.5), AWAY_FROM_LOSS_S, id="drops a fifth"),
    ],
)
def test_a_relay_that_delays_or_drops_is_left_for_another(
    lab: Lab, conditions: Conditions, within_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    network = lab(TWO_RELAYS)
    network.start_bootstraps()
    network_id = network.create("east")
    for host in TWO_RELAYS.members:
        network.join(host.name, network_id)
    laptop, phone = network.node("laptop"), network.node("phone")
    eventually(lambda: through(laptop, "phone"), "through a member", 20)
    eventually(lambda: through(phone, "laptop"), "on both sides", 20)
    with answers_of(laptop, phone) as log, tcp_stream(laptop, phone) as (sent, came):
        time.sleep(10)  # both ways have been measured by then: neither is new when one becomes bad
        (bad,) = through(laptop, "phone") or [""]
        (good,) = {"east", "west"} - {bad}
        worsen(network, bad, conditions)
        took = eventually(lambda: through(laptop, "phone") == [good], "another relay", within_s)
        took += eventually(lambda: through(phone, "laptop") == [good], "on both sides", within_s)
        time.sleep(1)
    assert b"".join(sent) == b"".join(data for _, data in came)
    with capsys.disabled():
        print(f"\nleft after {took:.1f} s; longest gap {gaps(log.read_text())[0]:.2f} s")  # noqa: T201
    assert took < within_s
    assert peer_of(laptop, "phone")["path"] == "relayed"
