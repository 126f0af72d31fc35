"""A made-up node with peers on every kind of path: what explanations, graphs and pings look at."""

import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from types import SimpleNamespace
from typing import Any

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Occasion, Peer, PeerTable
from dhtvpn.mesh.relayed import place_of, relayed
from dhtvpn.mesh.routes import Links
from dhtvpn.nat.candidates import CandidateKind as IceKind
from dhtvpn.nat.checked_pairs import CheckedPair, PairResult
from dhtvpn.node.happenings import Happening
from dhtvpn.node.path_history import PathHistory
from dhtvpn.records.record import (
    Candidate,
    CandidateKind,
    NatBehaviour,
    PublishedFiltering,
    PublishedMapping,
)

OWN, THEIRS = Endpoint("192.168.1.2", 4690), Endpoint("198.18.2.2", 4690)
VOLUNTEER = Endpoint("198.18.3.3", 4690)
SYMMETRIC = NatBehaviour(PublishedMapping.DEPENDENT, PublishedFiltering.BY_PORT)
RESTRICTED = NatBehaviour(PublishedMapping.ENDPOINT_INDEPENDENT, PublishedFiltering.BY_PORT)
BY_SERVER, BY_VOLUNTEER = 1, 2
"""Relays by number."""


class SeenNode:
    """What the documents ask a node for."""

    def __init__(self) -> None:
        self.table = PeerTable()
        self.told: list[Happening] = []
        self.id, self.started = "ownid", 0.0
        self.config = SimpleNamespace(hostname="desk", network="home")
        self.claim = SimpleNamespace(address=IPv4Address("10.7.0.1"))
        self.clock = SimpleNamespace(offset_s=None)
        self.port = SimpleNamespace(port=4690)
        self.port_mapper: Any = SimpleNamespace(conditions=list)
        self.surroundings = SimpleNamespace(
            nat=SYMMETRIC,
            answered=True,
            candidates=lambda: (Candidate(OWN, CandidateKind.HOST),),
        )
        self.foreseen: dict[Peer, Any] = {}
        self.prediction = SimpleNamespace(
            tries=lambda peer: self.foreseen.get(peer, SimpleNamespace(guesses=(), failed=0))
        )
        self.records: dict[Peer, Any] = {}
        self.links: list[Links] = []
        self.ways: list[Endpoint] = []
        self.members = SimpleNamespace(of=self.records.get)
        self.tunnels = SimpleNamespace(last_handshake=lambda peer: None)
        self.relaying = SimpleNamespace(
            members_of=self._members_of,
            volunteer_of=lambda endpoint: VOLUNTEER if self._via(endpoint) == BY_VOLUNTEER else None,
            ways_now=lambda peer: self.ways,
            neighbourhood=SimpleNamespace(
                own_links=lambda: (bytes(8), Links(bytes(8), 1, self._own_links())), told=lambda: self.links
            ),
        )
        self.reporter: Any = SimpleNamespace(
            history=PathHistory(relays=self.relaying, tell=self.told.append)  # type: ignore[arg-type]
        )

    def add(
        self, name: str, at: Endpoint | None, *pairs: CheckedPair, nat: NatBehaviour = RESTRICTED
    ) -> Peer:
        """A member at ``at``; with None there is no path to it."""
        number = len(self.table) + 1
        peer = self.table.add(
            tunnel_key=bytes([number]) * 32,
            node_key=bytes([number]) * 32,
            id=f"id{number}",
            name=name,
            ipv4=IPv4Address(f"10.7.0.{number + 1}"),
            ipv6=IPv6Address(f"fd00::{number}"),
        )
        assert peer is not None
        connector = SimpleNamespace(
            candidates=(Candidate(THEIRS, CandidateKind.REFLEXIVE), Candidate(OWN, CandidateKind.HOST)),
            attempts=2,
            running=False,
            pairs=pairs,
            checked_s=3.25 if pairs else None,
        )
        self.records[peer] = SimpleNamespace(
            nat=nat, connector=connector, found_by="lan", record_seen_at=time.time() - 60, unusable=()
        )
        if at is not None:
            self.reach(peer, at)
        return peer

    def reach(self, peer: Peer, at: Endpoint) -> None:
        peer.endpoint = peer.heard_at = at
        peer.move(Occasion.SESSION_UP)
        self.reporter.history.look(peer)

    def through(self, peer_number: int, relay: int) -> Endpoint:
        return relayed(relay, peer_number)

    def _own_links(self) -> dict[bytes, float]:
        direct = [peer for peer in self.table.all() if peer.path == "direct" and peer.node_key]
        return {(peer.node_key or b"")[:8]: peer.rtt_ms or 50.0 for peer in direct}

    def _members_of(self, endpoint: Endpoint | None) -> Sequence[Peer]:
        by_server = self._via(endpoint) == BY_SERVER
        return [peer for peer in self.table.all() if peer.name == "server"] if by_server else []

    @staticmethod
    def _via(endpoint: Endpoint | None) -> int | None:
        place = None if endpoint is None else place_of(endpoint)
        return None if place is None else place.via


def no_answer(remote: Endpoint = THEIRS, kind: IceKind = IceKind.REFLEXIVE) -> CheckedPair:
    return CheckedPair(OWN, remote, kind, PairResult.NO_ANSWER, requests=9)


def succeeded(remote: Endpoint = THEIRS, kind: IceKind = IceKind.REFLEXIVE) -> CheckedPair:
    return CheckedPair(OWN, remote, kind, PairResult.SUCCEEDED, nominated=True, requests=1, rtt_ms=20.125)
