"""Port mapping on a laboratory router: by the real miniupnpd, and by a gateway that means harm."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from joined import eventually, join_all, log_text, peer_of, pings, status
from mapping_router import PUBLIC_ADDRESS, MappingRouter

from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import SYMMETRIC
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Router, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

PORT = 41000
HERE = Path(__file__).parent
ONE_HOME = Topology(
    "one-home",
    "for these tests",
    hosts=(
        Host("server", Role.PLAIN),
        Host("inside", Role.PLAIN, behind="home"),
        Host("beside", Role.PLAIN, behind="home"),
    ),
    routers=(Router("home", SYMMETRIC),),
)
ONE_HOME_IPV6 = Topology(
    "one-home-ipv6",
    "for these tests",
    hosts=(Host("server", Role.PLAIN, ipv6=True), Host("inside", Role.PLAIN, behind="home", ipv6=True)),
    routers=(Router("home", SYMMETRIC, ipv6=True),),
)
SYMMETRIC_HOMES = Topology(
    "symmetric-homes",
    "for these tests: no direct path without a port mapping",
    hosts=(Host("boot", Role.BOOTSTRAP), Host("laptop", behind="home"), Host("phone", behind="carrier")),
    routers=(Router("home", SYMMETRIC), Router("carrier", SYMMETRIC)),
)


class Client:
    """A port mapper alone, on one machine."""

    def __init__(self, machine: Machine, *protocols: str, port: int = PORT) -> None:
        self.output = machine.log_file("client")
        words = [sys.executable, str(HERE / "mapping_client.py"), str(port), *protocols]
        with self.output.open("w") as output:
            self.child = machine.popen(words, stdin=subprocess.PIPE, stdout=output)

    def until(self, condition: Callable[[dict[str, Any]], object], timeout_s: float = 15.0) -> dict[str, Any]:
        """The first gateway that it told of for which ``condition`` holds, and the drops until then."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            lines = [json.loads(line) for line in self.output.read_text().splitlines() if line.endswith("}")]
            found.extend(
                dict(gateway) | {"drops": line["drops"]}
                for line in lines
                for gateway in line["gateways"]
                if condition(gateway)
            )
            return bool(found)

        eventually(look, "the port mapper tells", timeout_s)
        return found[0]

    def mapped(self) -> dict[str, Any]:
        return self.until(lambda gateway: gateway["protocol"])

    def leave(self) -> float:
        """Let it release and end; the seconds that this took."""
        began = time.monotonic()
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait(5)
        return time.monotonic() - began


@pytest.fixture
def home(lab: Lab) -> tuple[Network, MappingRouter]:
    network = lab(ONE_HOME)
    return network, MappingRouter(network, "home")


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def reaches(network: Network, sockets: ExitStack, external: Endpoint) -> bool:
    """Whether a datagram from a server outside arrives at the port inside."""
    inside = sockets.enter_context(network.node("inside").socket())
    inside.bind(("", PORT))
    inside.settimeout(3)
    outside = sockets.enter_context(network.node("server").socket())
    outside.sendto(b"unasked", (external.host, external.port))
    return bool(inside.recv(100) == b"unasked")


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        (["pcp"], {}),
        (["nat-pmp"], {}),
        (["upnp"], {}),
        (["upnp"], {"enable_natpmp": "no"}),
        ([], {"enable_natpmp": "no", "force_igd_desc_v1": "yes"}),
        ([], {"enable_upnp": "no"}),
        ([], {}),
    ],
    ids=["pcp", "nat-pmp", "upnp", "upnp-only", "igd-v1", "no-upnp", "any"],
)
def test_the_router_forwards_what_it_says_until_we_leave(
    wanted: list[str],
    options: dict[str, str],
    home: tuple[Network, MappingRouter],
    sockets: ExitStack,
) -> None:
    network, router = home
    router.start(**options)
    inside = network.node("inside")
    client = Client(inside, *wanted)
    gateway = client.mapped()
    expected = wanted[0] if wanted else "upnp" if options.get("enable_natpmp") == "no" else "pcp"
    assert gateway["protocol"] == expected
    assert gateway["external"] == f"{PUBLIC_ADDRESS}:{PORT}"
    assert gateway["lifetime_left_s"] == pytest.approx(1200, abs=10)
    assert gateway["drops"] == {}
    assert router.mappings() == {PORT: Endpoint(str(inside.ipv4), PORT)}
    assert reaches(network, sockets, Endpoint(PUBLIC_ADDRESS, PORT))
    assert client.leave() < 2
    assert router.mappings() == {}


@pytest.mark.parametrize("link_local", [False, True], ids=["global", "link-local"])
def test_the_firewall_of_ipv6_lets_in_what_it_says_until_we_leave(
    link_local: bool, lab: Lab, sockets: ExitStack
) -> None:
    """A pinhole for our own address; its router is reached at a link-local address, as most are."""
    network = lab(ONE_HOME_IPV6)
    router = MappingRouter(network, "home")
    router.start(ext_ifname6="wan")
    inside = network.node("inside")
    own = str(inside.ipv6)
    if link_local:
        listing = router.machine.run(["ip", "-json", "-6", "address", "show", "dev", "lan", "scope", "link"])
        (address,) = [
            a["local"]
            for link in json.loads(listing.stdout)
            for a in link.get("addr_info", [])
            if "local" in a
        ]
        inside.run(["ip", "-6", "route", "replace", "default", "via", address, "dev", "eth0"])
    receiver = sockets.enter_context(inside.socket(socket.AF_INET6))
    receiver.bind(("::", PORT))
    receiver.settimeout(3)
    sender = sockets.enter_context(network.node("server").socket(socket.AF_INET6))
    sender.sendto(b"too early", (own, PORT))
    client = Client(inside)
    gateway = client.until(lambda gateway: gateway["own"] == own and gateway["protocol"])
    assert (gateway["protocol"], gateway["external"]) == ("pcp", f"[{own}]:{PORT}")
    sender.sendto(b"unasked", (own, PORT))
    assert receiver.recv(100) == b"unasked"
    client.leave()
    assert (
        router.machine.run(["nft", "list", "chain", "inet", "filter", "miniupnpd"]).stdout.count("accept")
        == 0
    )


def test_a_router_that_restarts_is_asked_again_at_once(home: tuple[Network, MappingRouter]) -> None:
    network, router = home
    router.start()
    client = Client(network.node("inside"))
    client.mapped()
    # RFC 6887 section 8.5 allows the gateway's clock to be two seconds off
    eventually(lambda: router.uptime_s > 4, "the gateway has run for a while")
    router.reboot()
    eventually(router.mappings, "the mapping is back", 10)
    client.leave()
    assert router.mappings() == {}


def test_after_a_kill_the_same_mapping_is_taken_up_again(home: tuple[Network, MappingRouter]) -> None:
    network, router = home
    router.start()
    inside = network.node("inside")
    first = Client(inside, "pcp")
    first.mapped()
    inside.kill_all()
    assert router.mappings()
    again = Client(inside, "pcp")
    assert again.mapped()["external"] == f"{PUBLIC_ADDRESS}:{PORT}"
    again.leave()
    assert router.mappings() == {}


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp", "upnp-v1"])
def test_a_port_that_another_machine_has_is_replaced(
    protocol: str, home: tuple[Network, MappingRouter], sockets: ExitStack
) -> None:
    network, router = home
    router.start(force_igd_desc_v1="yes" if protocol == "upnp-v1" else "no")
    inside, beside = network.node("inside"), network.node("beside")
    first = Client(beside, "upnp")
    assert first.mapped()["external"] == f"{PUBLIC_ADDRESS}:{PORT}"
    second = Client(inside, protocol.removesuffix("-v1"))
    host, _, port = second.mapped()["external"].partition(":")
    assert router.mappings() == {
        PORT: Endpoint(str(beside.ipv4), PORT),
        int(port): Endpoint(str(inside.ipv4), PORT),
    }
    assert reaches(network, sockets, Endpoint(host, int(port)))
    second.leave()
    assert list(router.mappings()) == [PORT]
    first.leave()
    assert router.mappings() == {}


def test_a_router_behind_another_nat_is_told_and_not_believed(home: tuple[Network, MappingRouter]) -> None:
    network, router = home
    router.start(ext_ip="")  # its own address is of a range for benchmarks: miniupnpd calls that double NAT
    client = Client(network.node("inside"))
    gateway = client.until(lambda gateway: gateway["detail"] not in ("", "searching"))
    assert gateway["external"] is None
    assert router.mappings() == {}
    client.leave()


@pytest.mark.parametrize("how", ["endless", "gigabyte", "slow", "redirect", "noise"])
def test_a_hostile_gateway_costs_little(how: str, lab: Lab) -> None:
    network = lab(ONE_HOME)
    home = network.node("home")
    log = home.daemon([sys.executable, str(HERE / "hostile_gateway.py"), how], "hostile")
    home.wait_for_port("udp", 1900, log, 10)
    inside = network.node("inside")
    client = Client(inside)
    gateway = client.until(lambda gateway: gateway["detail"] not in ("", "searching"), 20)
    assert gateway["external"] is None and gateway["protocol"] is None
    assert sum(gateway["drops"].values()) > 0
    (pid,) = inside.processes()
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(lines["VmHWM"].split()[0]) < 90_000
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    assert sum(map(int, spent)) < 300, "less than three seconds of a core, the start included"
    assert client.leave() < 2


def test_two_symmetric_nats_with_one_mapping_are_joined_directly(lab: Lab) -> None:
    """Without the mapping this pair has no direct path. The nodes are confined as ever."""
    network = lab(SYMMETRIC_HOMES)
    router = MappingRouter(network, "home")
    router.start()
    join_all(network)
    laptop, phone = network.node("laptop"), network.node("phone")
    assert peer_of(phone, "laptop")["path"] == "direct"
    document = status(laptop)
    port = document["node"]["udp_port"]
    assert document["confinement"]["not_dropped"] == ["root"]
    (gateway,) = document["port_mapping"]["gateways"]
    assert gateway["protocol"] == "pcp" and gateway["published"] and not gateway["double_nat"]
    assert gateway["external"] == f"{PUBLIC_ADDRESS}:{port}"
    assert router.mappings() == {port: Endpoint(str(laptop.ipv4), port)}
    assert peer_of(phone, "laptop")["endpoint"] == gateway["external"]
    assert pings(phone, document["node"]["ipv4"]).returncode == 0
    assert log_text(laptop).count(f"the router forwards {gateway['external']} to this node (pcp)") >= 1
    (none,) = status(phone)["port_mapping"]["gateways"]
    assert none["protocol"] is None and none["detail"]
    laptop.cli("leave")
    eventually(lambda: not laptop.processes(), "it has ended")
    assert router.mappings() == {}


def test_upnp_under_confinement_and_not_at_all_where_it_is_turned_off(lab: Lab) -> None:
    network = lab(SYMMETRIC_HOMES)
    router = MappingRouter(network, "home")
    router.start(enable_natpmp="no")
    network.start_bootstraps()
    laptop = network.node("laptop")
    network_id = network.create("laptop")
    network.join("laptop", network_id, "--no-port-mapping")
    assert status(laptop)["port_mapping"] == {"enabled": False, "detail": "turned off", "gateways": []}
    laptop.cli("leave")
    eventually(lambda: not laptop.processes(), "it has ended")
    assert router.mappings() == {}
    network.join("laptop", network_id, "--port-mapping")
    eventually(router.mappings, "mapped")
    eventually(lambda: status(laptop)["port_mapping"]["gateways"][0]["protocol"] == "upnp", "told")
    laptop.cli("leave")
    eventually(lambda: not laptop.processes(), "it has ended")
    assert router.mappings() == {}
