"""Neighbours: members whose newest record has come over a local link."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from dhtvpn.endpoint import Endpoint
from dhtvpn.membership.addresses import Claim
from dhtvpn.node.members import Member, Members
from dhtvpn.records.record import Candidate, CandidateKind

ENVELOPE = b"newest"
NEAR = Candidate(Endpoint("fe80::7", 1), CandidateKind.HOST)
FAR = Candidate(Endpoint("198.18.1.1", 1), CandidateKind.HOST)


class Bench:
    """One member, whose record names both; our interfaces are ``zones``."""

    def __init__(self) -> None:
        self.zones: list[int] = [3]
        self.told: list[Candidate] = []
        self.members = Members.__new__(Members)
        self.members._surroundings = SimpleNamespace(on_our_links=self._on_our_links)  # type: ignore[assignment]
        connector: Any = SimpleNamespace(candidates=[FAR], candidates_told=self._candidates_told)
        member = Member(SimpleNamespace(), connector, Claim(bytes(32), 0, 1))  # type: ignore[arg-type]
        member.told, member.envelope = (FAR, NEAR), ENVELOPE
        self.connector, self.member = connector, member
        self.members._members = {bytes(32): member}

    def _on_our_links(self, candidates: Any) -> list[Candidate]:
        assert candidates == (FAR, NEAR)
        return [Candidate(NEAR.endpoint.in_zone(zone), CandidateKind.HOST) for zone in self.zones]

    def _candidates_told(self, candidates: list[Candidate]) -> None:
        self.told += candidates
        self.connector.candidates += candidates


def on(zone: int) -> Candidate:
    return Candidate(Endpoint(f"fe80:{zone}::7", 1), CandidateKind.HOST)


def test_a_record_heard_nearby_makes_a_neighbour() -> None:
    bench = Bench()
    bench.members.links_changed()
    bench.members.heard_nearby(b"older")
    assert not bench.told and not bench.member.nearby
    bench.members.heard_nearby(ENVELOPE)
    bench.members.heard_nearby(ENVELOPE)
    assert bench.told == [on(3)] and bench.member.nearby


def test_a_link_that_comes_later_is_tried_then() -> None:
    bench = Bench()
    bench.zones = []
    bench.members.heard_nearby(ENVELOPE)
    assert not bench.told
    bench.zones = [3]
    bench.members.links_changed()
    bench.members.links_changed()
    assert bench.told == [on(3)]


def test_predicted_ports_of_a_signal_are_kept_apart_from_candidates() -> None:
    bench = Bench()
    peer, predicted = SimpleNamespace(node_key=bytes(32)), list[Candidate]()
    port, relay = replace(FAR, kind=CandidateKind.PREDICTED), replace(FAR, kind=CandidateKind.RELAY)
    victim = Candidate(Endpoint("198.18.2.2", 1), CandidateKind.PREDICTED)
    bench.connector.nonce, bench.connector.ports_predicted = b"run", predicted.extend
    bench.members._surroundings = SimpleNamespace(usable=list)  # type: ignore[assignment]
    arrived: list[Any] = []
    bench.members._candidates_arrived = lambda *what: arrived.append(what)  # type: ignore[method-assign]
    for nonce in (b"run", b"another"):
        bench.members.signalled(peer, nonce, [port, victim, FAR, relay])  # type: ignore[arg-type]
    assert bench.told == [FAR] and predicted == [port, port]
    assert arrived == [(bench.member, b"another", [FAR, relay])]
