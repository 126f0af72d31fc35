"""The whole of netcheck against nodes on loopback, and whom it asks."""

import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.remembered import RememberedContacts, RememberedPeer, RememberedPeers
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.membership.network_id import Mode
from dhtvpn.nat.plain_stun import PlainStunService
from dhtvpn.nat.port import UdpPort
from dhtvpn.netcheck import document as documents
from dhtvpn.netcheck import machine
from dhtvpn.netcheck.contacts import Known, known_contacts
from dhtvpn.netcheck.document import document
from dhtvpn.netcheck.report import Machine, Report, RunningNode, Udp
from dhtvpn.netcheck.run import RESOLVE_S, NetcheckConfig, run_netcheck
from dhtvpn.netcheck.verdict import Peer, Verdict
from dhtvpn.networks import NetworkStore

PAGE = Path(__file__).parents[3] / "docs" / "netcheck.md"


@pytest.fixture
def a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but loopback: no test depends on what the real one has."""

    async def look(networks: object, exclude: object) -> machine.Facts:
        return machine.Facts(Machine(True, True), {4: (), 6: ()}, frozenset())

    monkeypatch.setattr(machine, "look", look)


@pytest.fixture
async def start_node() -> AsyncIterator[Callable[..., Awaitable[Endpoint]]]:
    """Starts volunteers' nodes on loopback."""
    ports: list[UdpPort] = []
    directories: list[KademliaDirectory] = []

    async def start(clock_ahead_s: float = 0.0) -> Endpoint:
        port = await UdpPort.open(None, "127.0.0.1", None, drops=Drops(), tunnel_sockets=False)
        directory = KademliaDirectory(
            port.send_dht, families=frozenset({4}), unix_time=lambda: time.time() + clock_ahead_s
        )
        port.on_dht(directory.handle_datagram)
        PlainStunService(port)
        ports.append(port)
        directories.append(directory)
        return Endpoint("127.0.0.1", port.port)

    yield start
    for directory in directories:
        await directory.close()
    for port in ports:
        port.close()


def config(*names: object, **more: Any) -> NetcheckConfig:
    return replace(NetcheckConfig(Known(tuple(map(str, names)), ()), port_mapping=False), **more)


async def run(chosen: NetcheckConfig) -> tuple[Report, list[str]]:
    told: list[str] = []
    return await run_netcheck(chosen, told.append), told


@pytest.mark.usefixtures("a_machine")
async def test_everything_about_a_node_on_loopback(start_node) -> None:
    node = await start_node()
    report, told = await run(config(node))
    assert report.ipv4.udp is Udp.WORKS
    outside = report.ipv4.outside
    assert outside.public_endpoints == (), "loopback is not outside"
    assert outside.path_mtu == 1500
    assert (report.directory.known, report.directory.answered) == (1, 1)
    assert report.directory.nodes == 1 and report.directory.lookup_ms is not None
    assert report.clock_offset_s is not None and abs(report.clock_offset_s) < 2
    assert report.routers is None
    assert set(told) == {"this machine", "IPv4", "IPv6", "DHT", "router"}


@pytest.mark.usefixtures("a_machine")
async def test_a_clock_that_is_wrong(start_node) -> None:
    report, _ = await run(config(await start_node(clock_ahead_s=7200)))
    assert report.clock_offset_s == pytest.approx(7200, abs=5)
    assert document(report)["clock"]["right"] is False


@pytest.mark.usefixtures("a_machine")
async def test_nobody_is_known_and_nobody_is_asked() -> None:
    report, _ = await run(config())
    assert (report.ipv4.outside.asked, report.directory.known) == (0, 0)
    assert report.took_s < 1


@pytest.mark.usefixtures("a_machine")
async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = await UdpPort.open(None, "127.0.0.1", None, drops=Drops(), tunnel_sockets=False)
    report, _ = await run(config(Endpoint("127.0.0.1", silent.port)))
    silent.close()
    assert (report.ipv4.outside.asked, report.ipv4.outside.answered) == (1, 0)
    assert report.directory.answered == 0
    assert report.took_s < 5


@pytest.mark.usefixtures("a_machine")
async def test_names(start_node, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that resolves, one that does not, and one whose resolver is gone: it is not waited for, neither now
    nor at the end of the process."""
    node, gone = await start_node(), threading.Event()

    def getaddrinfo(host: str, port: int, **options: object) -> list[Any]:
        if host == "silent.example":
            gone.wait(30)
        if host != "node.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (node.host, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    names = (f"node.example:{node.port}", "nowhere.example:4690", "silent.example:4690")
    report, _ = await run(config(*names))
    left = [thread for thread in threading.enumerate() if thread.name == "resolve silent.example"]
    gone.set()
    assert report.unresolved == names[1:]
    assert report.ipv4.udp is Udp.WORKS and report.directory.known == 1
    assert RESOLVE_S <= report.took_s < RESOLVE_S + 4
    assert [thread.daemon for thread in left] == [True]
    for thread in left:
        thread.join(5)


@pytest.mark.usefixtures("a_machine")
async def test_the_port_that_was_asked_for_or_another() -> None:
    taken = await UdpPort.open(None, "127.0.0.1", None, drops=Drops(), tunnel_sockets=False)
    report, _ = await run(config(port=taken.port))
    assert report.wanted_port == taken.port != report.port
    taken.close()
    report, _ = await run(config(port=taken.port))
    assert report.wanted_port is None and report.port == taken.port


@pytest.mark.usefixtures("a_machine")
async def test_what_runs_here_is_handed_on() -> None:
    running = (RunningNode("home", 7, 41000, "dv0"), RunningNode("work", 8))
    chosen = config(running=running)
    assert chosen.own_interfaces == ("dv0",)
    report, _ = await run(chosen)
    assert document(report)["running"] == [
        {"network": "home", "pid": 7, "udp_port": 41000},
        {"network": "work", "pid": 8, "udp_port": None},
    ]


def test_whom_it_asks(tmp_path: Path) -> None:
    """Those given, then those of earlier joins, then DHT nodes that answered, then members."""
    store = NetworkStore(tmp_path)
    network = store.create("home", Mode.OPEN, IPv4Network("10.9.0.0/16"))
    network = store.remember(network.network_id, bootstrap=("old.example:4690",), peers=("192.0.2.9:50000",))
    contact, member = Endpoint("192.0.2.1", 4690), Endpoint("192.0.2.2", 50000)
    RememberedContacts(network.directory / "contacts.json").save([contact])
    other = Endpoint("192.0.2.3", 50000)
    RememberedPeers(network.directory / "peers.json").save(
        [RememberedPeer(bytes(32), "desk", (member, other), last_seen=1.0)]
    )
    known = known_contacts(["new.example:4690", "old.example:4690"], [network])
    assert known.names == ("new.example:4690", "old.example:4690", "192.0.2.9:50000")
    assert known.remembered == (contact, member)
    assert known_contacts([], []) == Known((), ())


TOP = (
    *("version", "udp", "verdict", "direct_with", "ipv4", "ipv6", "port_mapping", "dht", "clock", "machine"),
    *("running", "unresolved", "udp_port", "findings", "took_s"),
)
OF_A_FAMILY = (
    *("udp", "addresses", "default_route", "public_endpoints", "mapping", "ports_in_order", "filtering"),
    *("hairpinning", "path_mtu", "asked", "answered", "rtt_ms"),
)
PARTS = [part for part in vars(documents).values() if hasattr(part, "__total__")]


def keys_of(part: Any) -> set[str]:
    """Every key of the TypedDict, and of those inside it."""
    found: set[str] = set()
    for name, kind in get_type_hints(part).items():
        found.add(name)
        inner = get_args(kind)[0] if get_origin(kind) is list else kind
        if inner in PARTS:
            found |= keys_of(inner)
    return found


def test_the_page_names_every_key_word_and_code() -> None:
    page = PAGE.read_text()
    assert len(PARTS) == 10
    assert [key for key in keys_of(documents.Document) if f"`{key}`" not in page] == []
    words = [*Udp, *Verdict, *Peer]
    assert [word.value for word in words if f"`{word.value}`" not in page] == []
    source = (Path(documents.__file__).parent / "meaning.py").read_text()
    codes = set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', source))
    assert len(codes) == source.count("yield Finding(")
    assert [code for code in codes if f"`{code}`" not in page] == []


@pytest.mark.usefixtures("a_machine")
async def test_the_document_has_exactly_these_keys() -> None:
    """A program may rely on them: whoever takes one away changes ``version``."""
    report, _ = await run(config())
    found = json.loads(json.dumps(document(report)))
    assert sorted(found) == sorted(TOP)
    assert sorted(found["ipv4"]) == sorted(found["ipv6"]) == sorted(OF_A_FAMILY)
    assert sorted(found["port_mapping"]) == ["routers", "tested"]
    assert sorted(found["dht"]) == ["answered", "known", "lookup_ms", "nodes"]
    assert sorted(found["clock"]) == ["offset_s", "right"]
    assert sorted(found["machine"]) == ["lan_interfaces", "net_admin", "overlaps", "tun_device"]
    assert sorted(found["direct_with"]) == ["ipv6", "open", "port-restricted", "public", "symmetric"]
    assert sorted(found["findings"][0]) == ["advice", "code", "level", "text"]
    assert found["version"] == 1
