"""A simulated network in virtual time: links with latency and loss, NATs, fake envelopes.

Every node has a /24 (a /64) of its own and knows its address, so that ids fit as on the internet.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from virtual_time import run

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.node_ids import bound_id
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

__all__ = ["FakeEnvelope", "Network", "fake_envelope", "fake_inspect", "run", "writer_of"]

UNIX_START = 1_800_000_000
MAGIC = b"fake"


@dataclass(frozen=True)
class FakeEnvelope:
    slot: bytes
    sequence: int
    expires: int


def fake_envelope(
    dht_key: bytes, writer: int, sequence: int, expires_in: int = 3600, size: int = 600
) -> bytes:
    """A tiny stand-in for a sealed record: magic, key, slot, sequence, expiry, checksum, filler."""
    slot = hashlib.blake2b(writer.to_bytes(4, "big"), digest_size=16).digest()
    body = dht_key + slot + sequence.to_bytes(8, "big") + (UNIX_START + expires_in).to_bytes(8, "big")
    head = MAGIC + body + hashlib.blake2b(body, digest_size=8).digest()
    return head + bytes(size - len(head))


def fake_inspect(envelope: bytes, dht_key: bytes, unix_time: float) -> FakeEnvelope:
    if len(envelope) < 64 or envelope[:4] != MAGIC:
        raise DecodeError("format")
    body = envelope[4:56]
    if envelope[56:64] != hashlib.blake2b(body, digest_size=8).digest():
        raise DecodeError("signature")
    if body[:20] != dht_key:
        raise DecodeError("topic")
    seen = FakeEnvelope(body[20:36], int.from_bytes(body[36:44], "big"), int.from_bytes(body[44:52], "big"))
    if seen.expires <= unix_time:
        raise DecodeError("expired")
    return seen


def writer_of(envelope: bytes) -> tuple[bytes, int]:
    return envelope[24:40], int.from_bytes(envelope[40:48], "big")


class Network:
    """Carries datagrams between endpoints with latency; counts octets per direction."""

    def __init__(self, seed: int = 1, latency_s: float = 0.005, loss: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.latency_s, self.loss = latency_s, loss
        self.handlers: dict[Endpoint, Callable[[bytes, Endpoint], None]] = {}
        self.guarded: dict[Endpoint, set[Endpoint]] = {}
        self.times: list[float] = []
        """When each datagram of ``log`` was sent."""
        self.log: list[tuple[Endpoint, Endpoint, bytes]] = []
        self.directories: list[KademliaDirectory] = []

    def sender(self, source: Endpoint) -> Callable[[bytes, Endpoint], None]:
        def send(data: bytes, destination: Endpoint) -> None:
            self.carry(data, source, destination)

        return send

    def carry(self, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self.log.append((source, destination, data))
        if source in self.guarded:
            self.guarded[source].add(destination)
        if self.random.random() < self.loss or source.is_ipv6 != destination.is_ipv6:
            return
        delay = self.latency_s * self.random.uniform(0.8, 1.2)
        asyncio.get_running_loop().call_later(delay, self._deliver, data, source, destination)

    def _deliver(self, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        if destination in self.guarded and source not in self.guarded[destination]:
            return  # port-restricted filtering (RFC 4787: address and port-dependent)
        handler = self.handlers.get(destination)
        if handler is not None:
            handler(data, source)

    def endpoint(self, number: int, family: int = 4) -> Endpoint:
        if family == 6:
            return Endpoint(f"2001:db8:{number + 1:x}::1", 4690)
        return Endpoint(f"198.{18 + (number >> 8)}.{number & 255}.1", 4690)

    def contact(self, number: int, family: int = 4) -> Contact:
        """Somebody at that endpoint, with an id that fits; always the same."""
        endpoint = self.endpoint(number, family)
        return Contact(bound_id(endpoint.host, random.Random(number).randbytes), endpoint)

    def unix_time(self) -> float:
        return UNIX_START + asyncio.get_running_loop().time() - 1000.0

    def node(
        self,
        number: int,
        *,
        behind_nat: bool = False,
        families: frozenset[int] = frozenset({4}),
        endpoints: dict[int, Endpoint] | None = None,
        **options: Any,
    ) -> KademliaDirectory:
        endpoints = endpoints or {family: self.endpoint(number, family) for family in families}
        rng = random.Random(1000 + number)

        def send(data: bytes, destination: Endpoint) -> None:
            family = 6 if destination.is_ipv6 else 4
            if family in endpoints:
                self.carry(data, endpoints[family], destination)

        hosts = [endpoint.host for endpoint in endpoints.values()]
        options.setdefault("own", OwnIds(families, rng.randbytes, addresses=hosts))
        directory = KademliaDirectory(
            send,
            inspect=options.pop("inspect", fake_inspect),
            drops=options.pop("drops", None) or Drops(),
            families=families,
            monotonic=asyncio.get_running_loop().time,
            unix_time=options.pop("unix_time", self.unix_time),
            random_bytes=rng.randbytes,
            **options,
        )
        for endpoint in endpoints.values():
            self.handlers[endpoint] = directory.handle_datagram
            if behind_nat:
                self.guarded[endpoint] = set()
        self.directories.append(directory)
        return directory

    async def grow(self, count: int, first: int = 0, **options: Any) -> list[KademliaDirectory]:
        """``count`` nodes that bootstrap from node ``first``, one after the other."""
        nodes = []
        for number in range(first, first + count):
            node = self.node(number, **options)
            await node.start([self.endpoint(first)] if number > first else [])
            nodes.append(node)
        await asyncio.sleep(5)
        return nodes

    async def close(self) -> None:
        for directory in self.directories:
            await directory.close()
