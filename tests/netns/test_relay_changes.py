"""Relayed pairs whose ground moves: from IPv4 alone to IPv6 alone, and when all bootstrap nodes are gone."""

import itertools
import time
from collections.abc import Callable, Sequence

import pytest
from joined import eventually, join_all, overlay, peer_of, pings, status, wait_connected
from test_network_changes import Stream, default_routes, ip, start_again, traffic

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import SYMMETRIC
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import PUBLIC_SEGMENT, Host, Role, Router, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

BACK_WITHIN_S = 2.0

HOMES = ("laptop-home", "phone-home")
BEHIND = (Host("laptop", behind=HOMES[0], ipv6=True), Host("phone", behind=HOMES[1], ipv6=True))
ROUTERS = tuple(Router(name, SYMMETRIC, ipv6=True) for name in HOMES)

BY_VOLUNTEER = Topology(
    "families-volunteer",
    "two members that reach no more than a volunteer, over either family",
    hosts=(Host("boot", Role.BOOTSTRAP, ipv6=True, relay=True), *BEHIND),
    routers=ROUTERS,
)
BY_MEMBER = Topology(
    "families-member",
    "two members that reach no more than a third, over either family",
    hosts=(Host("boot", Role.BOOTSTRAP, ipv6=True), Host("server", ipv6=True), *BEHIND),
    routers=ROUTERS,
)
NO_BOOT = Topology(
    "relay-alone",
    "a member relays when nobody else is left",
    hosts=(
        Host("boot", Role.BOOTSTRAP),
        Host("server"),
        *(Host(name, behind=f"{name}-home") for name in ("laptop", "phone", "tablet")),
    ),
    routers=tuple(Router(f"{name}-home", SYMMETRIC) for name in ("laptop", "phone", "tablet")),
)


def relay_of(machine: Machine, peer: str) -> object:
    """Whom packets to ``peer`` go through; None where there is nobody, or no such peer yet."""
    known = {each["name"]: each for each in status(machine)["peers"]}
    return known[peer]["relay"] if peer in known else None


def keep_apart(network: Network) -> None:
    """IPv6 knows no NAT here: nothing of it passes between the two homes, as with firewalls that let in no
    strangers' packets at all."""
    one, other = (network.plan.link(name).ipv6 for name in ("laptop", "phone"))
    assert one is not None and other is not None
    pairs = ((one.network, other.network), (other.network, one.network))
    rules = "\n".join(f"ip6 saddr {there} ip6 daddr {back} drop" for there, back in pairs)
    chain = f"chain forward {{\ntype filter hook forward priority 0\n{rules}\n}}\n"
    network.node(PUBLIC_SEGMENT).run(["nft", "-f", "-"], stdin=f"table ip6 apart {{\n{chain}}}\n")


def to_ipv6(network: Network, member: str) -> None:
    """The member's network has IPv4 no more, and IPv6 instead."""
    link = network.plan.link(member)
    ip(
        network.node(member),
        f"address del {link.ipv4} dev {link.interface}",
        f"address add {link.ipv6} dev {link.interface} nodad",
        *default_routes(network, member)[1:],
    )


def assert_back(stream: Stream, usable_at: float, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    took_s = stream.back_after(usable_at)
    with capsys.disabled():
        print(f"\n{what}: back after {took_s:.2f} s")  # noqa: T201 - the figures are what this is run for
    assert took_s <= BACK_WITHIN_S
    assert stream.tcp_works()


@pytest.mark.parametrize(
    "movers",
    [
        pytest.param(("laptop",), id="one side", marks=pytest.mark.soak),
        pytest.param(("laptop", "phone"), id="both sides"),
    ],
)
@pytest.mark.parametrize("topology", [BY_VOLUNTEER, BY_MEMBER], ids=["volunteer", "member"])
def test_a_relayed_pair_goes_from_ipv4_alone_to_ipv6_alone(
    lab: Lab, topology: Topology, movers: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    network = lab(topology)
    keep_apart(network)
    for member in movers:
        link = network.plan.link(member)
        ip(network.node(member), f"address del {link.ipv6} dev {link.interface}")
    join_all(network)
    laptop, phone = network.node("laptop"), network.node("phone")
    by = "member" if topology is BY_MEMBER else "volunteer"

    def relayed_by(kind: str) -> bool:
        relays = [relay_of(laptop, "phone"), relay_of(phone, "laptop")]
        return all(isinstance(relay, dict) and relay["kind"] == kind for relay in relays)

    eventually(lambda: relayed_by(by), f"through the {by}", 20)
    with traffic(laptop, phone) as stream:
        time.sleep(2)  # both are at rest with what they have
        for member in movers:
            to_ipv6(network, member)
        assert_back(stream, time.monotonic(), f"{by}, {len(movers)} moved", capsys)
        eventually(lambda: relayed_by(by), f"still through the {by}", 20)


def test_a_member_relays_when_every_bootstrap_node_is_gone(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """What flows goes on; a router that forgets everything is no end; and one who is told of no more than a
    member's address gets to everybody else through it."""
    network = lab(NO_BOOT)
    network.start_bootstraps()
    network_id = network.create("server")
    for member in ("server", "laptop", "phone"):
        network.join(member, network_id)
    laptop, phone = network.node("laptop"), network.node("phone")
    by_server = {"kind": "member", "members": ["server"]}
    eventually(lambda: relay_of(laptop, "phone") == by_server, "through the member", 20)
    eventually(lambda: relay_of(phone, "laptop") == by_server, "on both sides", 20)
    with traffic(laptop, phone) as stream:
        network.node("boot").kill_all()
        gone_at = time.monotonic()
        time.sleep(8)
        answers = [gone_at, *(at for at in stream.answers if at > gone_at)]
        longest = max(later - earlier for earlier, later in itertools.pairwise(answers))
        assert longest < 1.0, "nobody needs the bootstrap node for what flows"
        start_again(network, "laptop-home", 3)
        assert_back(stream, time.monotonic(), "without bootstrap nodes, a router started again", capsys)
    hint = peer_of(laptop, "server")["endpoint"]
    began = time.monotonic()
    network.join("tablet", network_id, "--peer", hint, bootstraps=())
    tablet = network.node("tablet")
    wait_connected(tablet, 3)
    with capsys.disabled():
        print(f"a newcomer reaches all after {time.monotonic() - began:.1f} s")  # noqa: T201
    assert peer_of(tablet, "server")["path"] == "direct"
    for name in ("laptop", "phone"):
        assert relay_of(tablet, name) == by_server
        assert pings(tablet, overlay(network.node(name))[0]).returncode == 0
