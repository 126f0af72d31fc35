"""What netcheck says on laboratory networks is the truth."""

import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from joined import eventually, traces
from mapping_router import PUBLIC_ADDRESS, MappingRouter

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import (
    ADDRESS_RESTRICTED,
    CARRIER,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Filtering,
    Mapping,
    Nat,
)
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Router, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

BOOTSTRAPS = (Host("boot1", Role.BOOTSTRAP, ipv6=True), Host("boot2", Role.BOOTSTRAP, ipv6=True))
LONGEST_S = 6.0
"""What it says it took; five seconds and a busy machine."""
EVERY_HOME = [
    OPEN_FILTERING,
    ADDRESS_RESTRICTED,
    PORT_RESTRICTED,
    SYMMETRIC,
    replace(PORT_RESTRICTED, hairpinning=True),
    replace(OPEN_FILTERING, hairpinning=True),
    replace(SYMMETRIC, hairpinning=True),
]


def network_of(nats: Sequence[Nat], *, ipv6: bool = False) -> Topology:
    """``inside`` is behind these NATs, the nearest first."""
    routers: list[Router] = []
    above = None
    for level, nat in reversed(list(enumerate(nats))):
        routers.append(Router(f"router{level}", nat, above, ipv6=ipv6))
        above = routers[-1].name
    return Topology(
        "netcheck",
        "for these tests",
        hosts=(*BOOTSTRAPS, Host("inside", Role.PLAIN, behind=above, ipv6=ipv6)),
        routers=tuple(routers),
    )


def words(network: Network, *options: str, bootstraps: int = 2) -> list[str]:
    """The command line, with the first ``bootstraps`` nodes in every family that ``inside`` has."""
    endpoints = network.bootstrap_endpoints("inside")
    names = [host.name for host in network.topology.bootstraps][:bootstraps]
    hosts = {str(address) for name in names for address in (network.node(name).ipv4, network.node(name).ipv6)}
    chosen = [endpoint for endpoint in endpoints if endpoint.host in hosts]
    given = [word for endpoint in chosen for word in ("--bootstrap", str(endpoint))]
    return ["netcheck", *given, *options]


def netcheck(network: Network, *options: str, exit_code: int = 0, bootstraps: int = 2) -> dict[str, Any]:
    """What it prints on ``inside``. Router questions take three seconds where nobody answers: they are asked
    only where a test is about them."""
    inside = network.node("inside")
    done = inside.cli(*words(network, *options, "--json", bootstraps=bootstraps), check=False)
    assert done.returncode == exit_code, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["took_s"] < LONGEST_S
    return dict(found)


def codes(found: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in found["findings"]}


def test_a_public_machine(lab: Lab) -> None:
    network = lab(network_of([], ipv6=True))
    network.start_bootstraps()
    before = traces(network.node("inside"))
    found = netcheck(network)
    inside = network.node("inside")
    for family, address in (("ipv4", inside.ipv4), ("ipv6", inside.ipv6)):
        part = found[family]
        assert part["udp"] == "works" and part["default_route"] is True
        assert part["addresses"] == [str(address)]
        host = f"[{address}]" if family == "ipv6" else str(address)
        assert part["public_endpoints"] == [f"{host}:{found['udp_port']}"]
        assert (part["mapping"], part["filtering"], part["hairpinning"]) == ("none", "not by port", None)
        assert (part["asked"], part["answered"], part["path_mtu"]) == (2, 2, 1500)
        assert 0 < part["rtt_ms"] < 1000
    assert (found["udp"], found["verdict"]) == ("works", "anyone")
    assert set(found["direct_with"].values()) == {True}
    assert (found["dht"]["known"], found["dht"]["answered"], found["dht"]["nodes"]) == (4, 4, 4)
    assert found["dht"]["lookup_ms"] < 2000
    assert found["clock"]["right"] is True and abs(found["clock"]["offset_s"]) < 5
    assert found["machine"]["net_admin"] is True
    assert found["machine"]["lan_interfaces"] == [inside.interfaces()[-1].partition("@")[0]]
    assert {"direct-anyone", "ipv6"} <= codes(found)
    assert not {finding["code"] for finding in found["findings"] if finding["level"] == "problem"}
    assert traces(inside) == before


@pytest.mark.parametrize(
    "nat", EVERY_HOME, ids=lambda nat: f"{nat.short}{'-hairpin' if nat.hairpinning else ''}"
)
def test_every_home(nat: Nat, lab: Lab) -> None:
    network = lab(network_of([nat]))
    network.start_bootstraps()
    found = netcheck(network, "--no-port-mapping")
    part = found["ipv4"]
    dependent = nat.mapping is not Mapping.ENDPOINT_INDEPENDENT
    by_port = nat.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT
    assert part["mapping"] == ("address-and-port-dependent" if dependent else "endpoint-independent")
    assert part["filtering"] == ("address-and-port-dependent" if by_port else "not by port")
    assert part["hairpinning"] is nat.hairpinning
    router = network.node("router0").ipv4
    assert all(endpoint.startswith(f"{router}:") for endpoint in part["public_endpoints"])
    assert len(part["public_endpoints"]) == (2 if dependent else 1)
    assert part["path_mtu"] == 1500
    assert found["ipv6"]["udp"] == "no address"
    assert found["port_mapping"] == {"tested": False, "routers": []}
    expected = "some" if dependent else "most" if by_port else "anyone"
    assert found["verdict"] == expected
    assert f"direct-{expected}" in codes(found)


@pytest.mark.parametrize("hairpinning", [True, False])
def test_a_carriers_nat_in_front_of_a_homes(hairpinning: bool, lab: Lab) -> None:
    network = lab(network_of([PORT_RESTRICTED, replace(CARRIER, hairpinning=hairpinning)]))
    network.start_bootstraps()
    part = netcheck(network, "--no-port-mapping")["ipv4"]
    assert (part["mapping"], part["filtering"]) == ("endpoint-independent", "address-and-port-dependent")
    assert part["hairpinning"] is hairpinning
    assert part["public_endpoints"][0].startswith(f"{network.node('router1').ipv4}:")


def test_udp_blocked(lab: Lab) -> None:
    network = lab(network_of([PORT_RESTRICTED]))
    network.start_bootstraps()
    rules = (
        "table inet block { chain forward { type filter hook forward priority -10;"
        " meta l4proto udp drop; }; }\n"
    )
    network.node("router0").run(["nft", "-f", "-"], stdin=rules)
    found = netcheck(network, "--no-port-mapping", exit_code=4)
    assert (found["udp"], found["verdict"]) == ("no answer", "nobody")
    assert set(found["direct_with"].values()) == {False}
    assert (found["ipv4"]["asked"], found["ipv4"]["answered"]) == (2, 0)
    assert found["findings"][0]["code"] == "udp-no-answer"
    assert found["clock"] == {"offset_s": None, "right": None}


def test_ipv6_alone(lab: Lab) -> None:
    topology = Topology(
        "netcheck", "for these tests", (*BOOTSTRAPS, Host("inside", Role.PLAIN, ipv4=False, ipv6=True))
    )
    network = lab(topology)
    network.start_bootstraps()
    found = netcheck(network, "--no-port-mapping")
    assert (found["ipv4"]["udp"], found["ipv6"]["udp"]) == ("no address", "works")
    assert found["ipv6"]["mapping"] == "none" and found["ipv6"]["path_mtu"] == 1500
    assert found["verdict"] == "ipv6"
    assert found["direct_with"]["ipv6"] is True and found["direct_with"]["public"] is False


def test_ipv6_behind_a_firewall_beside_a_symmetric_nat(lab: Lab) -> None:
    network = lab(network_of([SYMMETRIC], ipv6=True))
    network.start_bootstraps()
    found = netcheck(network, "--no-port-mapping")
    assert found["ipv6"]["filtering"] == "address-and-port-dependent"
    assert found["verdict"] == "some" and found["direct_with"]["ipv6"] is True
    assert {"direct-some", "ipv6"} <= codes(found)


@pytest.mark.parametrize("mtu", [1400, 1450, 1280])
@pytest.mark.parametrize("told", [True, False], ids=["icmp", "silent"])
def test_a_narrow_link_in_the_middle(mtu: int, told: bool, lab: Lab) -> None:
    network = lab(network_of([PORT_RESTRICTED], ipv6=True))
    network.start_bootstraps()
    link = network.plan.link("router0")
    router, upstream = network.node("router0"), network.node(link.upstream)
    router.run(["ip", "link", "set", "dev", link.interface, "mtu", str(mtu)])
    upstream.run(["ip", "link", "set", "dev", link.upstream_port, "mtu", str(mtu)])
    if not told:
        rules = (
            "table inet silence { chain output { type filter hook output priority 0;"
            " icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }\n"
        )
        router.run(["nft", "-f", "-"], stdin=rules)
    found = netcheck(network, "--no-port-mapping")
    for family in ("ipv4", "ipv6"):
        assert mtu - 4 <= found[family]["path_mtu"] <= mtu
    assert "mtu" in codes(found)


def test_one_node_and_the_dht_finds_the_second(lab: Lab) -> None:
    network = lab(network_of([SYMMETRIC]))
    network.start_bootstraps()
    eventually(lambda: netcheck(network, "--no-port-mapping", bootstraps=1)["dht"]["nodes"] == 2, "they met")
    found = netcheck(network, "--no-port-mapping", bootstraps=1)
    assert found["ipv4"]["mapping"] == "address-and-port-dependent"


def test_one_node_alone_is_not_enough(lab: Lab) -> None:
    network = lab(network_of([SYMMETRIC]))
    network.start_bootstrap("boot1")
    found = netcheck(network, "--no-port-mapping", bootstraps=1)
    assert (found["ipv4"]["mapping"], found["verdict"]) == ("unknown", "unknown")
    assert "mapping-unknown" in codes(found)


def test_a_router_that_maps_ports_gets_its_mapping_back(lab: Lab) -> None:
    network = lab(network_of([SYMMETRIC]))
    router = MappingRouter(network, "router0")
    router.start()
    network.start_bootstraps()
    found = netcheck(network)
    (asked,) = found["port_mapping"]["routers"]
    assert asked["offered"] == ["pcp", "nat-pmp", "upnp"]
    assert asked["protocol"] == "pcp" and asked["external"].startswith(f"{PUBLIC_ADDRESS}:")
    assert not asked["double_nat"]
    assert found["ipv4"]["mapping"] == "address-and-port-dependent", "the mapping is not in the filter's way"
    assert found["ipv4"]["filtering"] == "address-and-port-dependent"
    assert found["verdict"] == "anyone" and {"direct-anyone", "port-mapping"} <= codes(found)
    assert router.mappings() == {}


def test_a_router_behind_another_nat_says_so(lab: Lab) -> None:
    network = lab(network_of([SYMMETRIC]))
    router = MappingRouter(network, "router0")
    router.start(ext_ip="")
    network.start_bootstraps()
    found = netcheck(network)
    (asked,) = found["port_mapping"]["routers"]
    assert asked["external"] is None and asked["offered"]
    assert found["verdict"] == "some"
    assert router.mappings() == {}


def test_a_router_without_port_mapping(lab: Lab) -> None:
    network = lab(network_of([SYMMETRIC]))
    network.start_bootstraps()
    found = netcheck(network)
    (asked,) = found["port_mapping"]["routers"]
    assert asked["offered"] == [] and asked["external"] is None and asked["detail"]
    assert "no-port-mapping" in codes(found)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_gives_back_what_it_asked_for(number: signal.Signals, lab: Lab) -> None:
    network = lab(network_of([SYMMETRIC]))
    router = MappingRouter(network, "router0")
    router.start()
    inside = network.node("inside")
    before = traces(inside)
    child = inside.popen(inside.dhtvpn(*words(network)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: _port_of(inside), "it asks")
    child.send_signal(number)
    assert child.wait(5) == 130
    assert child.stdout is not None and child.stderr is not None
    assert (child.stdout.read(), child.stderr.read()) == ("", "")
    assert router.mappings() == {}
    eventually(lambda: not inside.processes(), "it has ended")
    assert traces(inside) == before


def _port_of(machine: Machine) -> bool:
    return bool(machine.bound_ports("udp"))


def test_beside_a_running_node(lab: Lab) -> None:
    """It needs no --bootstrap: the node's network remembers one. The node's overlay is no overlap."""
    network = lab(replace(network_of([PORT_RESTRICTED]), name="beside"))
    network.start_bootstraps()
    inside = network.node("inside")
    network_id = network.create("inside")
    network.join("inside", network_id, "--port", "41000", bootstraps=network.bootstrap_endpoints("inside"))
    found = json.loads(inside.cli("netcheck", "--port", "41000", "--no-port-mapping", "--json").stdout)
    assert found["verdict"] == "most"
    (running,) = found["running"]
    assert (running["network"], running["udp_port"]) == ("lab", 41000)
    assert found["udp_port"] != 41000
    assert {"running", "port-taken"} <= codes(found) and "overlap" not in codes(found)
    assert network_id not in json.dumps(found)
    inside.cli("leave")


def test_an_overlay_that_collides(lab: Lab) -> None:
    network = lab(network_of([]))
    network.start_bootstraps()
    inside = network.node("inside")
    network_id = inside.cli("create", "home", "--ipv4", "10.99.0.0/16").stdout.splitlines()[0]
    inside.run(["ip", "route", "add", "10.99.4.0/24", "dev", "eth0"])
    found = netcheck(network, "--no-port-mapping")
    assert found["machine"]["overlaps"] == [
        {"network": "home", "overlay": "10.99.0.0/16", "route": "10.99.4.0/24 dev eth0"}
    ]
    assert "overlap" in codes(found) and network_id not in json.dumps(found)


def test_for_a_person(lab: Lab) -> None:
    network = lab(network_of([SYMMETRIC]))
    network.start_bootstraps()
    done = network.node("inside").cli(*words(network, "--no-port-mapping"))
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "address-and-port-dependent" in done.stdout
    assert "! direct paths only to members that are public" in done.stdout
    assert "do: turn on PCP" in done.stdout
    assert done.stderr == ""
