"""The node's own loops, on fakes: what a survey tells the directory, and when clocks are compared."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from virtual_time import run

from dhtvpn.discovery.sources import Sources, kademlia_source
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.membership.network_id import create
from dhtvpn.nat.port_mapping.mapper import Condition
from dhtvpn.nat.reflexive import Mapping, Survey
from dhtvpn.networks import Cipher
from dhtvpn.node.claim import OwnClaim
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.events import Events
from dhtvpn.node.node import Node
from dhtvpn.node.status import status_document
from dhtvpn.node.surroundings import Surroundings
from dhtvpn.node.surveying import SURVEY_S

CONTACT = Endpoint("198.18.1.1", 4690)
PUBLIC = Endpoint("198.18.2.2", 4690)


class FakeDirectory:
    """Reached once ``size`` is set. Nobody stores or finds anything."""

    def __init__(self) -> None:
        self.size = self.stored = 0
        self.read_only = False
        self.offsets = [5 * 3600.0]
        self.clocks_asked: list[list[Endpoint]] = []

    async def start(self) -> int:
        return 0

    async def bootstrap(self, endpoints: Sequence[Endpoint]) -> int:
        return 0

    def contacts(self) -> list[Endpoint]:
        return [CONTACT] * self.size

    async def close(self) -> None:
        pass

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        return 0

    async def watch(self, dht_key: bytes) -> Any:
        await asyncio.Event().wait()
        yield b""

    async def ask_time(self, contacts: list[Endpoint]) -> list[float]:
        self.clocks_asked.append(contacts)
        return self.offsets


class FakeMapper:
    """Has the mappings that the test puts into ``endpoints``."""

    def __init__(self) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        self.released, self.detail = False, ""
        self.changed: Callable[[], None] = lambda: None

    def attach(self, changed: Callable[[], None], seen: Callable[[], Sequence[Endpoint]]) -> None:
        self.changed, self.seen = changed, seen

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        self.released = True

    def conditions(self) -> list[Condition]:
        return [Condition("192.168.1.1", "192.168.1.10", "pcp", e, 9.6, False, "") for e in self.endpoints]


class Bench:
    """A node whose surveys see ``mapping``."""

    def __init__(self, directory: Path) -> None:
        network_id, _ = create(os.urandom)
        identity = Identity.from_seed(bytes(32))
        self.directory = FakeDirectory()
        self.mapping = Mapping.UNKNOWN
        self.public: list[Endpoint] = []
        self.said: list[tuple[str, str]] = []
        self.drops = Drops()
        self.mapper = FakeMapper()
        self.node = Node(
            NodeConfig(
                state_dir=directory,
                network_directory=directory,
                network="home",
                network_id=network_id,
                hostname="desk",
                bootstrap=(),
                port=None,
                interface=None,
                cipher=Cipher.AUTO,
                socket_path=directory / "sock",
            ),
            identity=identity,
            claim=OwnClaim(directory / "claim.json", network_id, identity.node_key, 1_800_000_000.0),
            port=self._port(),
            sources=Sources([kademlia_source(self.directory)], dht=self.directory, drops=self.drops),
            local_end=SimpleNamespace(  # type: ignore[arg-type]
                engine=SimpleNamespace(
                    pid=1,
                    offloads=("udp_gro",),
                    set_own_relay_ids=lambda ids: None,
                    forward=lambda octets: None,
                ),
                features=0,
                interface="dhtvpn0",
                move=self._move_address,
                set_mtus=None,
            ),
            surroundings=Surroundings(
                network_id=network_id, port=4690, host_addresses=self._no_addresses, survey=self._survey
            ),
            make_agent=lambda *_: None,  # type: ignore[arg-type]
            events=Events(lambda kind, text: self.said.append((kind, text))),
            drops=self.drops,
            random_bytes=os.urandom,
            port_mapper=self.mapper,  # type: ignore[arg-type]
        )

    def _port(self) -> Any:
        ignore = SimpleNamespace(on_unanswered_check=lambda handler: None)
        return SimpleNamespace(
            port=4690,
            families={4},
            stun=ignore,
            on_tunnel=lambda handler: None,
            on_relayed_handshake=lambda handler: None,
            on_relay_service=lambda handler: None,
            filter_in_kernel=lambda index_tag: None,
            count_kernel_drops=lambda: None,
            answer=lambda *_: None,
            network_changed=lambda: None,
            heard_at=lambda _: None,
        )

    async def _no_addresses(self) -> Sequence[IPv4Address]:
        return []

    async def _survey(self, servers: Sequence[Endpoint], own: Sequence[Any]) -> Survey:
        return Survey(self.mapping, self.public)

    async def _move_address(self, address: IPv4Address) -> None:
        raise AssertionError("nobody disputes the address")

    def clock_warnings(self) -> list[str]:
        return [text for kind, text in self.said if kind == "warning" and "clock" in text]


def on_bench(test: Callable[[Bench], Coroutine[Any, Any, None]], directory: Path) -> None:
    """Run ``test`` beside a running node, in virtual time."""

    async def scenario() -> None:
        bench = Bench(directory)
        assert bench.directory.read_only, "before the first survey nobody knows whether strangers get in"
        running = asyncio.create_task(bench.node.run())
        try:
            await test(bench)
        finally:
            bench.node.stop_requested.set()
            await running
            await bench.node.close()

    run(scenario())


@pytest.mark.parametrize("mapping", list(Mapping))
def test_only_a_node_without_nat_offers_itself_to_strangers(mapping: Mapping, tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.mapping, bench.public = mapping, [PUBLIC]
        await asyncio.sleep(0.1)
        assert bench.directory.read_only is (mapping is not Mapping.NONE)

    on_bench(test, tmp_path)


def test_the_newest_answered_survey_decides(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        seen = []
        for mapping, public in (
            (Mapping.NONE, [PUBLIC]),
            (Mapping.UNKNOWN, []),  # nobody answered
            (Mapping.ENDPOINT_INDEPENDENT, [PUBLIC]),
            (Mapping.NONE, [PUBLIC]),
        ):
            bench.mapping, bench.public = mapping, public
            await asyncio.sleep(SURVEY_S[-1] + 1)
            seen.append(bench.directory.read_only)
        assert seen == [False, False, True, False]

    on_bench(test, tmp_path)


def test_clocks_are_compared_once_the_directory_is_reached(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await asyncio.sleep(60)
        assert bench.directory.clocks_asked == []
        assert status_document(bench.node)["dht"]["clock_offset_s"] is None
        bench.directory.size = 1
        await asyncio.sleep(1)
        assert bench.directory.clocks_asked == [[CONTACT]]
        assert [("5 h behind" in text) for text in bench.clock_warnings()] == [True]
        assert status_document(bench.node)["dht"]["clock_offset_s"] == 5 * 3600
        bench.directory.offsets = [0.3]
        await asyncio.sleep(600)
        assert len(bench.directory.clocks_asked) == 2 and len(bench.clock_warnings()) == 1
        assert status_document(bench.node)["dht"]["clock_offset_s"] is None

    on_bench(test, tmp_path)


def test_a_port_mapping_is_published_at_once_unless_strangers_contradict_it(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.mapping, bench.public = Mapping.ENDPOINT_INDEPENDENT, [PUBLIC]
        await asyncio.sleep(1)
        before = bench.node.announcer.sequence
        bench.mapper.endpoints = (PUBLIC._replace(port=999),)
        bench.mapper.changed()
        await asyncio.sleep(0.1)
        assert bench.node.announcer.sequence > before
        (shown,) = status_document(bench.node)["port_mapping"]["gateways"]
        assert (shown["external"], shown["published"], shown["lifetime_left_s"]) == (
            "198.18.2.2:999",
            True,
            10,
        )
        before = bench.node.announcer.sequence
        bench.mapper.endpoints = (Endpoint("192.0.2.66", 999),)
        bench.mapper.changed()
        await asyncio.sleep(0.1)
        assert [candidate.endpoint for candidate in bench.node.surroundings.candidates()] == [PUBLIC]
        assert not status_document(bench.node)["port_mapping"]["gateways"][0]["published"]

    on_bench(test, tmp_path)


def test_the_mapping_is_taken_back_at_the_departure(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await asyncio.sleep(1)
        await bench.node.depart()
        assert bench.mapper.released

    on_bench(test, tmp_path)
