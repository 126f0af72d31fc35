"""Candidates: kinds, priorities, and which of a peer's may be checked."""

from enum import Enum

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.candidates import CandidateKind, ice_candidate, kind_of, priority, usable


class RecordKind(Enum):
    HOST = 0
    REFLEXIVE = 1
    MAPPED = 2
    NEW_ONE = 3


def test_kinds_come_by_name() -> None:
    assert kind_of(RecordKind.REFLEXIVE) is CandidateKind.REFLEXIVE
    assert kind_of("mapped") is CandidateKind.MAPPED
    assert kind_of(CandidateKind.HOST) is CandidateKind.HOST
    assert kind_of(RecordKind.NEW_ONE) is CandidateKind.HOST


def test_host_before_mapped_before_reflexive_and_ipv6_before_ipv4() -> None:
    v4, v6 = Endpoint("192.0.2.1", 1), Endpoint("2001:db8::1", 1)
    order = [
        priority(CandidateKind.HOST, v6, 0),
        priority(CandidateKind.HOST, v4, 0),
        priority(CandidateKind.HOST, v6, 1),
        priority(CandidateKind.MAPPED, v4, 0),
        priority(CandidateKind.REFLEXIVE, v6, 0),
    ]
    assert order == sorted(order, reverse=True)
    assert ice_candidate(v4, CandidateKind.MAPPED, 0).type == "srflx"


@pytest.mark.parametrize(
    ("host", "port", "good"),
    [
        ("192.0.2.1", 1000, True),
        ("10.0.0.1", 1000, True),
        ("169.254.3.4", 1000, True),
        ("2001:db8::1", 1000, True),
        ("fd00::1", 1000, True),
        ("192.0.2.1", 0, False),
        ("192.0.2.1", 65536, False),
        ("0.0.0.0", 1000, False),
        ("::", 1000, False),
        ("224.0.0.1", 1000, False),
        ("ff02::1", 1000, False),
        ("255.255.255.255", 1000, False),
        ("fe80::1", 1000, False),
        ("fe80:3::1", 1000, True),
        ("fe80:3:1::1", 1000, False),
        ("febf::1", 1000, False),
        ("::ffff:192.0.2.1", 1000, False),
        ("127.0.0.1", 1000, False),
        ("::1", 1000, False),
        ("printer.local", 1000, False),
        ("", 1000, False),
    ],
)
def test_which_candidates_of_a_peer_may_be_checked(host, port, good) -> None:
    assert usable(Endpoint(host, port), (4, 6), loopback=False) is good


def test_loopback_is_for_those_who_are_reached_there_and_families_must_match() -> None:
    assert usable(Endpoint("127.0.0.1", 1), (4,), loopback=True)
    assert not usable(Endpoint("127.0.0.1", 1), (6,), loopback=True)
