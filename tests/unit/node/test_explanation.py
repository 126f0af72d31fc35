"""The document behind why, on a made-up node."""

from types import SimpleNamespace

import pytest
from seen_node import (
    BY_SERVER,
    BY_VOLUNTEER,
    OWN,
    SYMMETRIC,
    THEIRS,
    VOLUNTEER,
    SeenNode,
    no_answer,
    succeeded,
)

from dhtvpn.control import schema
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Occasion
from dhtvpn.mesh.relayed import relayed
from dhtvpn.nat.candidates import CandidateKind as IceKind
from dhtvpn.node.explanation import ANOTHER_PORT, NATS_IN_THE_WAY, NOT_SENT_THERE, explanation
from dhtvpn.records.record import Candidate, CandidateKind


def codes(node: SeenNode, name: str) -> list[str]:
    document = explanation(node, node.table.find(name))  # type: ignore[arg-type]
    return [advice["code"] for advice in document["advice"]]


def test_a_relayed_peer_behind_a_nat_that_lets_no_check_through() -> None:
    node = SeenNode()
    node.add("server", Endpoint("198.18.9.9", 1))
    node.ways = [relayed(BY_SERVER, 2), relayed(BY_VOLUNTEER, 2)]
    peer = node.add("laptop", relayed(BY_SERVER, 2), no_answer(), no_answer(OWN))
    document = explanation(node, peer)  # type: ignore[arg-type]
    assert set(document) == set(schema.WhyDocument.__annotations__)
    assert document["path"]["relay"] == {"kind": "member", "members": ["server"]}
    assert document["path"]["why"] == "a relay works, and no direct path does yet"
    assert document["ways"] == [
        {"kind": "member", "members": ["server"]},
        {"kind": "volunteer", "endpoint": str(VOLUNTEER)},
    ]
    assert [pair["reason"] for pair in document["pairs"]] == [NATS_IN_THE_WAY, NATS_IN_THE_WAY]
    assert (document["own"]["mapping"], document["theirs"]["mapping"]) == (
        "address-and-port-dependent",
        "endpoint-independent",
    )
    assert document["record_age_s"] == pytest.approx(60, abs=5)
    assert (document["attempts"], document["checking"], document["checked_s"]) == (2, False, 3.2)
    assert [change["to"]["path"] for change in document["changes"]] == ["relayed"]
    assert codes(node, "laptop") == ["port-mapping", "forward-port", "ipv6"]


def test_a_port_that_was_foreseen_is_told_and_so_is_one_of_the_peer() -> None:
    node = SeenNode()
    guess = Endpoint("198.18.2.2", 30001)
    peer = node.add("laptop", relayed(BY_VOLUNTEER, 2), no_answer(guess, IceKind.PREDICTED))
    assert explanation(node, peer)["prediction"] is None  # type: ignore[arg-type]
    node.foreseen[peer] = SimpleNamespace(guesses=(guess,), failed=2)
    document = explanation(node, peer)  # type: ignore[arg-type]
    assert document["prediction"] == {"guesses": [str(guess)], "failed": 2}
    assert [(pair["kind"], pair["reason"]) for pair in document["pairs"]] == [("predicted", ANOTHER_PORT)]
    assert "port of desk was tried 2 times, in vain" in document["advice"][0]["text"]


def test_a_direct_peer_needs_nothing() -> None:
    node = SeenNode()
    peer = node.add("laptop", THEIRS, succeeded())
    document = explanation(node, peer)  # type: ignore[arg-type]
    (pair,) = document["pairs"]
    assert pair == {
        "local": str(OWN),
        "remote": str(THEIRS),
        "kind": "reflexive",
        "result": "succeeded",
        "reason": None,
        "nominated": True,
        "requests": 1,
        "rtt_ms": 20.12,
    }
    assert document["advice"] == [] and document["path"]["endpoint"] == str(THEIRS)


def test_candidates_that_nothing_is_sent_to_are_named() -> None:
    node = SeenNode()
    peer = node.add("laptop", None)
    node.records[peer].unusable = (Candidate(Endpoint("10.7.0.9", 1), CandidateKind.HOST),)
    document = explanation(node, peer)  # type: ignore[arg-type]
    assert [(pair["remote"], pair["result"], pair["reason"]) for pair in document["pairs"]] == [
        ("10.7.0.9:1", "not tried", NOT_SENT_THERE)
    ]
    assert document["path"] is None


def test_why_there_is_no_path() -> None:
    node = SeenNode()
    peer = node.add("laptop", None, no_answer())
    assert codes(node, "laptop")[-1] == "no-relay"
    node.surroundings.answered = False
    assert codes(node, "laptop") == ["no-udp", "no-relay"]
    node.records[peer].connector.running, node.records[peer].connector.attempts = True, 1
    assert codes(node, "laptop") == ["checking"]
    peer.move(Occasion.GONE)
    assert codes(node, "laptop") == ["left"]
    node.records.clear()
    assert codes(node, "laptop") == ["stock-peer"]


def test_mapped_and_global_candidates_change_the_advice() -> None:
    node = SeenNode()
    peer = node.add("laptop", relayed(BY_VOLUNTEER, 1), no_answer(), nat=SYMMETRIC)
    global_ipv6 = Candidate(Endpoint("2a00:1450::1", 4690), CandidateKind.HOST)
    node.records[peer].connector.candidates = (global_ipv6,)
    assert codes(node, "laptop")[-1] == "ipv6"
    node.surroundings.candidates = lambda: (global_ipv6,)
    assert codes(node, "laptop")[-1] == "ipv6-firewall"
    node.surroundings.candidates = lambda: (Candidate(OWN, CandidateKind.MAPPED),)
    assert codes(node, "laptop") == ["firewall"]


def test_a_peer_without_a_record_in_this_run() -> None:
    node = SeenNode()
    peer = node.add("laptop", None)
    node.records[peer].record_seen_at = 0.0
    node.clock = SimpleNamespace(offset_s=4000.0)
    assert codes(node, "laptop") == ["clock", "no-record", "no-relay"]


def test_what_came_of_asking_the_router_is_in_the_advice() -> None:
    node = SeenNode()
    peer = node.add("laptop", relayed(BY_VOLUNTEER, 1), no_answer())

    def first() -> str:
        text = explanation(node, peer)["advice"][0]["text"]  # type: ignore[arg-type]
        assert isinstance(text, str)
        return text

    assert "router of desk or of laptop" in first()
    node.port_mapper.conditions = lambda: [SimpleNamespace(double_nat=True)]
    assert "Another NAT" in first() and "router of laptop" in first()
    node.port_mapper = None
    assert "without --no-port-mapping" in first()
