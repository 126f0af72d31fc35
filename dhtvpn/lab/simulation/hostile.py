"""Nodes that work against the directory, together: they know each other and share what is stored with them.

Every one of them answers pings, so that it stays in routing tables, says "stored" to every store, and keeps
the envelope only to replay it. Beyond that each plays one part.
"""

import random
from bisect import bisect_left
from dataclasses import replace
from enum import Enum

from dhtvpn.discovery.contact import Contact, distance
from dhtvpn.discovery.node_ids import bound_id
from dhtvpn.discovery.wire import (
    CONTACTS_IN_REPLY,
    KIND_REQUEST,
    MAX_VALUES_IN_REPLY,
    Reply,
    Request,
    Rpc,
    decode_request,
    encode_reply,
    encode_value,
    split,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.lab.simulation import clock
from dhtvpn.lab.simulation.internet import Handler
from dhtvpn.lab.simulation.nodes import Node


class Part(Enum):
    """What a hostile node does when it is asked for a topic or for nodes."""

    SILENT = "stays silent"
    COLLUDE = "names only its own kind"
    INVENT = "names nodes that do not exist, as close to the target as ids at its kind's addresses can be"
    REPLAY = "names its own kind, and hands out the oldest envelope it has seen"
    FORGE = "names its own kind, and hands out damaged and foreign envelopes"
    FLOOD = "answers tenfold, and sends requests and noise to everybody it hears of"


WRONG_ADDRESS = "203.0.113.66"
"""Where all of them together claim to have seen whoever asks, so that his node id moves."""

FLOOD_DATAGRAMS = 10
FLOOD_TARGETS = 32
"""Endpoints that a flooder remembers to trouble."""


class Conspiracy:
    """What the hostile nodes know together."""

    def __init__(self, nodes: list[Node], rng: random.Random) -> None:
        self.rng = rng
        self.seen: dict[bytes, list[bytes]] = {}
        """Envelopes by dht_key, the oldest first."""
        self._members = sorted((node.contact for node in nodes), key=lambda contact: contact.node_id)
        self._ids = [contact.node_id for contact in self._members]
        hosts = [contact.endpoint.host for contact in self._members]
        self._places = sorted((_lowest_id(host, number), host) for host in hosts for number in range(8))
        """The lowest id of each place that our addresses have."""
        self._nodes = nodes
        self._honest: list[tuple[Node, Handler | None]] = []

    def take_over(self) -> None:
        """From now on the nodes are hostile, the parts shared out evenly."""
        parts = list(Part)
        for number, node in enumerate(self._nodes):
            self._honest.append((node, node.line.handler))
            node.line.handler = HostileNode(node, parts[number % len(parts)], self).handle_datagram

    def give_back(self) -> None:
        """The nodes are honest again; what they had stored and learnt before is still there."""
        for node, handler in self._honest:
            node.line.handler = handler
        self._honest.clear()

    def nearest(self, target: bytes) -> tuple[Contact, ...]:
        """Of our own kind, nearly the closest to ``target``: those around it in numerical order."""
        middle = bisect_left(self._ids, target)
        around = self._members[max(0, middle - 16) : middle + 16]
        return tuple(sorted(around, key=lambda c: distance(c.node_id, target))[:CONTACTS_IN_REPLY])

    def invented(self, target: bytes) -> tuple[Contact, ...]:
        """Ids that nobody has, at addresses of our kind: of the places that those have (BEP 42) the closest,
        and there the closest that is left to choose."""
        middle = bisect_left(self._places, (target, ""))
        around = self._places[max(0, middle - 16) : middle + 16]
        ids = [(_towards(target, place), host) for place, host in around]
        ids.sort(key=lambda claimed: distance(claimed[0], target))
        return tuple(
            Contact(node_id, Endpoint(host, self.rng.randrange(1024, 65536)))
            for node_id, host in ids[:CONTACTS_IN_REPLY]
        )

    def remember(self, dht_key: bytes, envelope: bytes) -> None:
        envelopes = self.seen.setdefault(dht_key, [])
        if envelope not in envelopes:
            envelopes.append(envelope)


class HostileNode:
    """Answers in the place of an honest node, under its id and address."""

    def __init__(self, node: Node, part: Part, conspiracy: Conspiracy) -> None:
        self._node, self._part, self._all = node, part, conspiracy
        self._heard: list[Endpoint] = []

    def handle_datagram(self, data: bytes, source: Endpoint) -> None:
        """One datagram of an honest node, or of another hostile one (left alone)."""
        try:
            kind, message_id, body = split(data)
            if kind != KIND_REQUEST:
                return
            request = decode_request(body)
        except DecodeError:
            return
        if request.rpc in (Rpc.FIND, Rpc.FIND_NODE, Rpc.WATCH):
            self._mislead(message_id, request, source)
            return
        if request.rpc is Rpc.STORE:
            self._all.remember(request.target, request.payload)
        self._answer(message_id, request, source, Reply(self._id, self._token, unix_time=self._wrong_time()))

    def _mislead(self, message_id: bytes, request: Request, source: Endpoint) -> None:
        part = self._part
        if part is Part.SILENT:
            return
        named = self._all.invented if part is Part.INVENT else self._all.nearest
        values = self._values(request) if request.rpc is not Rpc.FIND_NODE else []
        reply = Reply(self._id, self._token, named(request.target), values=len(values), lease_s=60)
        times = FLOOD_DATAGRAMS if part is Part.FLOOD else 1
        for _ in range(times):
            self._answer(message_id, request, source, reply)
            for envelope in values:
                self._node.line.send(encode_value(message_id, envelope), source)
        if part is Part.FLOOD:
            self._flood(request, source)

    def _values(self, request: Request) -> list[bytes]:
        seen = self._all.seen.get(request.target, [])
        rng = self._all.rng
        if self._part is Part.REPLAY:
            return seen[:1]
        if self._part is Part.FORGE:
            others = [envelopes for key, envelopes in self._all.seen.items() if key != request.target]
            foreign = rng.choice(others)[:1] if others else []
            return [*(_damaged(e, rng) for e in seen), *foreign, rng.randbytes(900), b""]
        if self._part is Part.FLOOD:
            return [rng.randbytes(rng.randrange(900)) for _ in range(MAX_VALUES_IN_REPLY // 8)]
        return []

    def _flood(self, request: Request, source: Endpoint) -> None:
        """Noise for the asker and for those heard of before."""
        rng = self._all.rng
        self._heard = [*self._heard[-FLOOD_TARGETS:], source]
        for target in (source, rng.choice(self._heard)):
            for kind in (0, 1, 2, 3):
                self._node.line.send(bytes([kind]) + rng.randbytes(rng.randrange(1200)), target)

    def _answer(self, message_id: bytes, request: Request, source: Endpoint, reply: Reply) -> None:
        lie = replace(reply, seen=source._replace(host=WRONG_ADDRESS))
        self._node.line.send(encode_reply(message_id, request.rpc, lie), source)

    @property
    def _id(self) -> bytes:
        return self._node.directory.node_id

    @property
    def _token(self) -> bytes:
        return self._all.rng.randbytes(8)

    def _wrong_time(self) -> int:
        return int(clock.unix_time()) + 86_400


def _lowest_id(host: str, number: int) -> bytes:
    """Of place ``number`` of the eight that ``host`` has."""
    return bound_id(host, lambda octets: bytes(octets - 1) + bytes([number]))


def _towards(target: bytes, place: bytes) -> bytes:
    """The id in this place that shares the most with ``target`` behind the bits that are bound."""
    middle = place[2] & 0xF8 | target[2] & 0x07
    return place[:2] + bytes([middle]) + target[3:19] + bytes([target[19] & 0xF8 | place[19]])


def _damaged(envelope: bytes, rng: random.Random) -> bytes:
    """One bit is another: nothing but the signature tells."""
    at = rng.randrange(len(envelope))
    return envelope[:at] + bytes([envelope[at] ^ 1 << rng.randrange(8)]) + envelope[at + 1 :]
