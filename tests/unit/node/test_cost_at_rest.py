"""What a member costs the line at rest, and what an outsider sees of it over a change of epochs: announcer,
finder and Kademlia directory as they run in a node, on a network in virtual time."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from virtual_time import VirtualTimeLoop

sys.path.insert(0, str(Path(__file__).parents[1] / "discovery"))
from discovery_simulation import UNIX_START, Network

from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.wire import HEADER_LENGTH, KIND_REQUEST, Request, Rpc, decode_request
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.finder import Finder
from dhtvpn.records.envelope import OpenedRecord, inspect
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topic import Topic

SECRET = bytes(range(32))
HEADERS = 28  # octets of IPv4 and UDP header; the port's prefix octet comes on top
LIMIT = 60.0  # octets per second, each way
HOUR = 3600.0


class RestingMember:
    """A member behind a NAT that publishes and watches, and has nothing else to do."""

    def __init__(self, network: Network, number: int, clock_s: float = 0.0) -> None:
        self.endpoint = network.endpoint(number)
        self.identity = Identity.from_seed(bytes([number % 256]) * 32)
        self.clock_s = clock_s
        self._network = network
        self.port = 1000
        self.found: list[tuple[float, OpenedRecord]] = []
        self.directory: KademliaDirectory = network.node(
            number, behind_nat=True, read_only=True, inspect=inspect, unix_time=self.unix_time
        )
        self.announcer = Announcer(
            directory=self.directory,
            identity=self.identity,
            topic_at=lambda epoch: Topic.derive(SECRET, epoch),
            record=self.record,
            random_bytes=os.urandom,
            published=lambda _: None,
            unix_time=self.unix_time,
        )
        self.finder = Finder(
            directory=self.directory,
            topic_at=lambda epoch: Topic.derive(SECRET, epoch),
            roster=Roster(),
            own_node_key=self.identity.node_key,
            member_found=lambda opened: self.found.append((asyncio.get_running_loop().time(), opened)),
            member_expired=lambda _: None,
            drops=Drops(),
            unix_time=self.unix_time,
        )
        self._tasks: list[asyncio.Task[Any]] = []

    def unix_time(self) -> float:
        return self._network.unix_time() + self.clock_s

    def record(self) -> EndpointRecord:
        candidates = tuple(
            Candidate(Endpoint(f"198.51.100.{i}", self.port), CandidateKind.HOST) for i in range(1, 6)
        )
        return EndpointRecord(self.identity.node_key, "member", bytes(16), candidates, 0, 1, 0)

    async def join(self) -> None:
        await self.directory.start([self._network.endpoint(0)])
        self._tasks = [asyncio.create_task(w) for w in (self.announcer.run(), self.finder.run())]

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def at_length(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run for many virtual hours."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(coroutine)


def test_a_member_at_rest_costs_less_than_the_limit() -> None:
    """Two members and 30 nodes over several changes of epoch, octets at the wire with all headers."""

    async def scenario() -> None:
        network = Network(latency_s=0.05)
        await network.grow(30, inspect=inspect)
        members = [RestingMember(network, 200), RestingMember(network, 201)]
        for member in members:
            await member.join()
        await asyncio.sleep(60)
        network.log.clear()
        network.times.clear()
        hours = 3
        await asyncio.sleep(hours * HOUR)
        for member in members:
            out = sum(len(d) + 1 + HEADERS for s, _, d in network.log if s == member.endpoint)
            back = sum(len(d) + 1 + HEADERS for _, t, d in network.log if t == member.endpoint)
            assert out / (hours * HOUR) <= LIMIT, out / (hours * HOUR)
            assert back / (hours * HOUR) <= LIMIT, back / (hours * HOUR)

        # ... and a change is still pushed: store to notice takes one way from writer and one to the reader.
        writer, reader = members
        reader.found.clear()
        changed_at = asyncio.get_running_loop().time()
        writer.port = 2000
        writer.announcer.announce()
        await asyncio.sleep(5)
        stored_at = next(
            at for at, (s, _, d) in _stores(network, changed_at) if s == writer.endpoint and b"store" in d
        )
        assert [o.record.candidates[0].endpoint.port for _, o in reader.found] == [2000]
        assert reader.found[0][0] - stored_at <= 2 * 0.05 * 1.2 + 0.001
        for member in members:
            await member.leave()
        await network.close()

    at_length(scenario())


def _stores(network: Network, since: float) -> list[tuple[float, tuple[Endpoint, Endpoint, bytes]]]:
    return [(at, entry) for at, entry in zip(network.times, network.log, strict=True) if at >= since]


def _strings(data: bytes, length: int = 6) -> set[bytes]:
    return {data[i : i + length] for i in range(len(data) - length + 1)}


def test_nothing_on_the_wire_links_two_epochs() -> None:
    """Of what a member says in its requests about one epoch's topic and about another's, no six octets in
    a row are the same. Around it is the frame of the DHT, with node id and token."""

    async def scenario() -> None:
        network = Network(latency_s=0.05)
        first = UNIX_START // 3600
        epochs = {Topic.derive(SECRET, epoch).dht_key: epoch for epoch in range(first - 1, first + 5)}
        await network.grow(12, inspect=inspect)
        member, other = RestingMember(network, 200), RestingMember(network, 201)
        await member.join()
        await other.join()
        await asyncio.sleep(3 * HOUR)
        about: dict[int, set[bytes]] = {}
        moments: dict[int, float] = {}
        for at, (source, _, data) in zip(network.times, network.log, strict=True):
            if source != member.endpoint or data[0] != KIND_REQUEST:
                continue
            request = decode_request(data[HEADER_LENGTH:])
            epoch = epochs.get(request.target)
            if epoch is not None:
                about.setdefault(epoch, set()).update(*map(_strings, _fields(request, epoch)))
                if request.rpc is Rpc.STORE:
                    moments.setdefault(epoch, at)
        assert len(about) >= 4
        common = Counter(string for strings in about.values() for string in strings)
        assert [string.hex() for string, count in common.items() if count > 1] == []
        assert len({round(at) for at in moments.values()}) == len(moments) >= 4, "at moments of their own"
        await member.leave()
        await other.leave()
        await network.close()

    at_length(scenario())


def _fields(request: Request, epoch: int) -> list[bytes]:
    """What a request says about its topic. An expiry is left out: it is the same for all writers."""
    if request.rpc is not Rpc.STORE:
        return [request.target, request.payload]
    seen = inspect(request.payload, request.target, epoch * 3600)
    sequence = seen.sequence.to_bytes(8, "big")
    return [request.target, seen.topic_public_key, seen.slot, sequence, seen.ciphertext, seen.signature]
