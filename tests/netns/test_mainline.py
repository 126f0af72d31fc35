"""Two members behind NATs find each other through a BitTorrent DHT, with no node of ours anywhere.

That DHT is forty libtorrent nodes on a machine of the laboratory, each at an address in a /24 of its own,
so that libtorrent's own rules against many nodes of one network are in force.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from joined import overlay, peer_of, pings, status
from mainline_nodes import PORT
from private_mainline import require_libtorrent

from dhtvpn.lab.addressing import HOST_UPLINK
from dhtvpn.lab.machine import Machine, read_line
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import PUBLIC_SEGMENT, Host, Role, Router, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

NODES = 40
WITHIN_S = 50
"""Four where nothing goes wrong, up to thirty otherwise. A store waits 15 s for a node that does not answer,
and of forty-one the other member is one (see MainlineSession._avoid); two who wrote a page at once find out 3
to 10 s later."""

SETTLED_S = 480.0
MEASURED_S = 900.0
"""At rest a watch asks every five minutes where another source tells of changes, else every minute."""

ROUTER_NAME = "router.example"
PROGRAM = Path(__file__).with_name("mainline_nodes.py")
USER = Path(__file__).with_name("mainline_user.py")
STORES = 30
"""Of these some six would stall: a node in forty is among the eight closest to a fifth of all items."""

STALL_S = 10.0
"""A node that does not answer costs 15 s, which is libtorrent's deadline."""

TOPOLOGY = Topology(
    "mainline",
    "two members behind a port-restricted NAT each, and a machine that is a DHT",
    hosts=(
        Host("world", Role.PLAIN),
        Host("laptop", behind="home"),
        Host("phone", behind="carrier"),
    ),
    routers=(Router("home"), Router("carrier")),
)


WITH_VOLUNTEER = replace(TOPOLOGY, hosts=(*TOPOLOGY.hosts, Host("volunteer", Role.BOOTSTRAP)))
"""A DHT node of ours too, for what mainline costs beside it."""


@pytest.fixture
def world(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Network]:
    """The laboratory with its DHT up; the first node's address is ADDRESSES[0]."""
    require_libtorrent()
    network = lab(getattr(request, "param", TOPOLOGY))
    machine = network.node("world")
    for address in ADDRESSES:
        machine.run(["ip", "address", "add", f"{address}/32", "dev", HOST_UPLINK])
        network.node(PUBLIC_SEGMENT).run(["ip", "route", "add", f"{address}/32", "via", str(machine.ipv4)])
    child = machine.popen(
        [sys.executable, str(PROGRAM), *ADDRESSES], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert read_line(child, 30.0, "the DHT").strip() == "up"
    yield network
    assert child.stdin is not None
    child.stdin.close()
    child.wait(10)


ADDRESSES = [f"198.19.{100 + number}.7" for number in range(NODES)]


def join(network: Network, member: str, network_id: str, *routers: str, sources: str = "mainline") -> None:
    """With ``sources``. /etc/hosts is ours in a mount namespace, so that there is a name to resolve."""
    machine = network.node(member)
    hosts = network.entry.directory / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{ADDRESSES[0]} {ROUTER_NAME}\n")
    words = [word for router in routers for word in ("--mainline-router", router)]
    words += [word for endpoint in network.bootstrap_endpoints() for word in ("--bootstrap", str(endpoint))]
    command = machine.dhtvpn("join", network_id, "--name", member, "--discovery", sources, *words, "--detach")
    mounted = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    machine.run(["unshare", "--mount", "sh", "-c", mounted, "sh", *command], timeout_s=40.0)


def source(machine: Machine) -> dict[str, object]:
    (found,) = [part for part in status(machine)["sources"] if part["name"] == "mainline"]
    return dict(found)


def assert_every_thread_is_confined(machine: Machine) -> None:
    """libtorrent's threads began after the process had given up its rights."""
    engine = status(machine)["engine"]["pid"]
    control = min(set(machine.processes()) - {engine})
    threads = [path.read_text() for path in Path(f"/proc/{control}/task").glob("*/status")]
    assert len(threads) > 1
    own = {"CapPrm": 1 << 12, "CapEff": 1 << 12, "CapBnd": 1 << 12, "Seccomp": 2, "NoNewPrivs": 1}
    for text in threads:
        lines = dict(line.split(":", 1) for line in text.splitlines())
        assert {name: int(lines[name], 16) for name in own} == own


def test_two_members_behind_nats_find_each_other(world: Network) -> None:
    laptop, phone = world.node("laptop"), world.node("phone")
    network_id = world.create("laptop")
    join(world, "laptop", network_id, f"{ROUTER_NAME}:{PORT}")
    join(world, "phone", network_id, f"{ADDRESSES[1]}:{PORT}")
    phone.cli("wait", "--peers", "1", "--timeout", str(WITHIN_S))
    assert pings(phone, overlay(laptop)[0]).returncode == 0
    assert pings(laptop, overlay(phone)[1]).returncode == 0
    for machine, other in ((laptop, "phone"), (phone, "laptop")):
        assert peer_of(machine, other)["found_by"] == "mainline"
        assert source(machine)["works"] is True
        assert status(machine)["confinement"]["file_system"] is True
        assert status(machine)["confinement"]["system_calls"] is True
        assert_every_thread_is_confined(machine)
        assert not machine.run(["ss", "-Htln"]).stdout.strip(), "nothing listens for TCP"


def test_whoever_stores_is_not_kept_waiting_by_its_own_address(world: Network) -> None:
    """The nodes that stored the first value hand out the address of the one who brought it, which answers
    nobody: it is behind a NAT that takes nothing from itself, and read-only (BEP 43)."""
    laptop = world.node("laptop")
    words = [str(laptop.ipv4), f"{ADDRESSES[0]}:{PORT}", str(STORES)]
    stores = json.loads(laptop.run([sys.executable, str(USER), *words], timeout_s=60 + 15 * STORES).stdout)
    assert all(store["confirmed"] >= 1 for store in stores), stores
    assert all(store["seconds"] < STALL_S for store in stores), stores


def count_mainline(machine: Machine) -> None:
    """Count what goes to and from nodes of the BitTorrent DHT, and all else that libtorrent's port sends.
    The counters have whole IP packets in them."""
    own = status(machine)["node"]["udp_port"]
    rules = f"""
        table inet cost {{
            counter sent {{ }}
            counter got {{ }}
            chain out {{
                type filter hook output priority 0
                oif lo accept
                udp dport {PORT} counter name sent accept
                udp sport != {own} counter name sent
            }}
            chain in {{
                type filter hook input priority 0
                iif lo accept
                udp sport {PORT} counter name got accept
                udp dport != {own} counter name got
            }}
        }}
    """
    machine.run(["nft", "-f", "-"], stdin=rules)


def counted(machine: Machine) -> dict[str, int]:
    listed = json.loads(machine.run(["nft", "-j", "list", "counters", "table", "inet", "cost"]).stdout)
    parts = [part["counter"] for part in listed["nftables"] if "counter" in part]
    return {part["name"]: part["bytes"] for part in parts}


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("world", "sources"),
    [(TOPOLOGY, "mainline"), (WITH_VOLUNTEER, "kademlia,mainline")],
    indirect=["world"],
    ids=["alone", "beside-kademlia"],
)
def test_the_cost_at_rest(world: Network, sources: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What docs/performance.md says of it."""
    world.start_bootstraps()
    members = {name: world.node(name) for name in ("laptop", "phone")}
    network_id = world.create("laptop")
    for name in members:
        join(world, name, network_id, f"{ADDRESSES[0]}:{PORT}", sources=sources)
    members["phone"].cli("wait", "--peers", "1", "--timeout", str(WITHIN_S))
    for machine in members.values():
        count_mainline(machine)
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in members}
    for seconds in (SETTLED_S, MEASURED_S):
        before = {name: counted(machine) for name, machine in members.items()}
        time.sleep(seconds)  # not to wait for something: this is the time that is measured
        for name, machine in members.items():
            after = counted(machine)
            rates[name].append({way: (after[way] - before[name][way]) / seconds for way in after})
    with capsys.disabled():
        print(f"\n{sources}: {json.dumps(rates)}")  # noqa: T201 - the figures are what this is run for
    assert all(rate["sent"] > 0 and rate["got"] > 0 for _, rate in rates.values())
