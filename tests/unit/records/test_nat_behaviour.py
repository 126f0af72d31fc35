"""What a record says of a NAT, and which pairs of NATs two public endpoints can get through."""

import itertools
from dataclasses import replace

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.records import strict_cbor
from dhtvpn.records.record import (
    NOTHING_KNOWN,
    Candidate,
    CandidateKind,
    EndpointRecord,
    NatBehaviour,
    PublishedFiltering,
    PublishedMapping,
    decode,
    encode,
)

RECORD = EndpointRecord(
    node_key=bytes(32),
    name="desk",
    session_nonce=bytes(16),
    candidates=(Candidate(Endpoint("198.18.0.1", 1), CandidateKind.HOST),),
    ipv4_attempt=0,
    since=0,
    features=0,
)
EVERY = [NatBehaviour(m, f) for m, f in itertools.product(PublishedMapping, PublishedFiltering)]


@pytest.mark.parametrize("behaviour", EVERY)
def test_what_is_written_is_read(behaviour: NatBehaviour) -> None:
    record = replace(RECORD, nat=behaviour)
    assert decode(encode(record)) == record


def test_without_knowledge_the_record_is_as_before() -> None:
    assert len(strict_cbor.decode(encode(RECORD))) == 9
    assert decode(encode(RECORD)).nat == NOTHING_KNOWN


@pytest.mark.parametrize("tenth", [12, 15, 16, 1 << 20, b"later", True])
def test_what_a_later_version_says_does_not_spoil_the_record(tenth: object) -> None:
    fields = [*strict_cbor.decode(encode(RECORD)), tenth, "and more"]
    assert decode(strict_cbor.encode(fields)).nat.filtering is PublishedFiltering.UNKNOWN


def test_pairs_with_full_knowledge_are_judged_as_the_laboratory_finds_them() -> None:
    """EIM or APDM mapping against filtering that asks for the port or not."""
    for one, other in itertools.product(EVERY, EVERY):
        if PublishedMapping.UNKNOWN in (one.mapping, other.mapping):
            continue
        if PublishedFiltering.UNKNOWN in (one.filtering, other.filtering):
            continue
        blocked = any(
            outgoing.mapping is PublishedMapping.DEPENDENT and facing.filtering is PublishedFiltering.BY_PORT
            for outgoing, facing in ((one, other), (other, one))
        )
        assert one.punches(other) is not blocked
        assert one.punches(other) == other.punches(one)


def test_little_knowledge_is_said_to_be_little() -> None:
    dependent = NatBehaviour(PublishedMapping.DEPENDENT, PublishedFiltering.BY_PORT)
    foreseen = NatBehaviour(PublishedMapping.ENDPOINT_INDEPENDENT)
    assert NOTHING_KNOWN.punches(NOTHING_KNOWN) is None
    assert dependent.punches(foreseen) is None
    assert foreseen.punches(foreseen) is True
    assert dependent.punches(NatBehaviour(PublishedMapping.NONE)) is True
