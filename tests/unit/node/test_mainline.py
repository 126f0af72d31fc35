"""A node's way into mainline: on a private DHT of libtorrent sessions on loopback, never on public hosts."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from private_mainline import PrivateMainline, require_libtorrent

from dhtvpn.discovery import libtorrent_session
from dhtvpn.discovery.remembered import RememberedContacts
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.identity import Identity
from dhtvpn.membership.network_id import Mode, NetworkId
from dhtvpn.nat.port import UdpPort
from dhtvpn.networks import Cipher
from dhtvpn.node import mainline as module
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.mainline import PUBLIC_ROUTERS, Mainline
from dhtvpn.records.envelope import seal
from dhtvpn.records.epochs import epoch_at
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.topics import NetworkTopics

SECRET = b"\2" * 32
NETWORK_ID = NetworkId(Mode.OPEN, b"\1" * 32, SECRET, None)
IDENTITY = Identity.from_seed(b"\3" * 32)
RECORD = EndpointRecord(
    node_key=IDENTITY.node_key,
    name="desk",
    session_nonce=bytes(16),
    candidates=(),
    ipv4_attempt=0,
    since=0,
    features=0,
)

MakeMainline = Callable[..., Mainline]


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateMainline]:
    """Twenty nodes that know each other."""
    require_libtorrent()
    made = PrivateMainline()
    yield made
    made.close()


@pytest.fixture
async def port() -> AsyncIterator[UdpPort]:
    opened = await UdpPort.open(None, "127.0.0.1", None, drops=Drops(), tunnel_sockets=False)
    yield opened
    opened.close()


@pytest.fixture
def make(tmp_path: Path, port: UdpPort, monkeypatch: pytest.MonkeyPatch) -> MakeMainline:
    """On loopback all nodes have one address, which libtorrent takes for one liar unless it is told. They
    serve others too: a store waits 15 s for one that does not, as tests/netns/test_mainline.py shows."""
    settings = libtorrent_session.settings

    def open_to_any(*arguments: Any, **options: Any) -> dict[str, object]:
        return settings(*arguments, **options | {"restricted": False, "read_only": False})

    monkeypatch.setattr("dhtvpn.discovery.mainline_session.settings", open_to_any)

    def one(*routers: str, topics: NetworkTopics | None = None) -> Mainline:
        config = NodeConfig(
            state_dir=tmp_path,
            network_directory=tmp_path,
            network="home",
            network_id=NETWORK_ID,
            hostname="desk",
            bootstrap=(),
            port=None,
            interface=None,
            cipher=Cipher.AUTO,
            socket_path=tmp_path / "socket",
            mainline_routers=routers,
        )
        return Mainline(config, port, topics or NetworkTopics(SECRET), Drops())

    return one


async def test_no_test_reaches_the_public_routers(make: MakeMainline) -> None:
    for name in PUBLIC_ROUTERS:
        with pytest.raises(socket.gaierror, match="tests look up no names"):
            socket.getaddrinfo(name.partition(":")[0], 6881)
    with pytest.raises(SystemRefusedError, match=r"none of router\.bittorrent\.com.*--mainline-router"):
        await make().open()


async def test_where_the_wheel_is_missing_the_refusal_says_what_to_install(
    make: MakeMainline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(libtorrent_session.importlib, "import_module", refuse)
    with pytest.raises(SystemRefusedError, match=r"pip install 'dhtvpn\[mainline\]'"):
        await make("127.0.0.1:9").open()


async def test_what_one_node_publishes_another_finds(make: MakeMainline, private: PrivateMainline) -> None:
    """From a router alone: the condition, the nodes that are remembered, and a record there and back."""
    router = str(private.endpoints[0])
    topics = NetworkTopics(SECRET)
    writer, reader = [await make(router, topics=topics).open() for _ in range(2)]
    try:
        unix = int(time.time())
        topic = topics.roster(epoch_at(unix))
        sealed = seal(RECORD, topic, IDENTITY, 1, unix // 60 * 60 + 3600, os.urandom)
        async with asyncio.timeout(30):
            while not await writer.publish(topic.dht_key, sealed):  # noqa: ASYNC110 - nodes are being met
                await asyncio.sleep(0.1)
            async with aclosing(reader.watch(topic.dht_key)) as found:
                assert await anext(found) == sealed
            while not writer.condition().works:  # noqa: ASYNC110 - the table is looked at now and then
                await asyncio.sleep(0.05)
            assert writer.condition().detail.endswith("known")
    finally:
        await writer.close()
        await reader.close()


async def seen(mainline: Mainline) -> list[Endpoint]:
    """The public endpoints of the first survey that has any. All nodes have one address here, of which a
    survey asks one server, and that may be one that is no more."""
    while not (found := await mainline.survey([])).public_endpoints:
        pass
    return found.public_endpoints


async def test_nodes_tell_our_endpoint_and_are_remembered(
    make: MakeMainline,
    private: PrivateMainline,
    port: UdpPort,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They see the port of ours, not libtorrent's; the next start needs no router that answers."""
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "HOLD_S", 0.05)
    mainline = make(str(private.endpoints[0]))
    directory = await mainline.open()
    try:
        async with asyncio.timeout(30):
            assert await seen(mainline) == [Endpoint("127.0.0.1", port.port)]
            contacts = RememberedContacts(tmp_path / "mainline.json")
            while len(contacts.load()) < 4:  # noqa: ASYNC110 - a file, written by a loop of its own
                await asyncio.sleep(0.05)
    finally:
        await directory.close()
    again = make("127.0.0.1:9")
    directory = await again.open()
    try:
        async with asyncio.timeout(30):
            assert await seen(again) == [Endpoint("127.0.0.1", port.port)]
    finally:
        await directory.close()


async def test_without_an_answer_a_survey_ends(make: MakeMainline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_NODES_S", 0.05)
    assert (await make("127.0.0.1:9").survey([])).public_endpoints == []
