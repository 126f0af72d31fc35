"""One network, one node and one record, for every test of the records."""

from dataclasses import dataclass

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.topic import Topic

EPOCH = 483_000


@dataclass(frozen=True)
class Scene:
    """A member and what it publishes at ``now``, the start of an epoch."""

    topic: Topic
    identity: Identity
    record: EndpointRecord
    now: int


@pytest.fixture
def scene() -> Scene:
    identity = Identity.from_seed(b"\1" * 32)
    record = EndpointRecord(
        identity.node_key,
        "laptop",
        bytes(range(16)),
        (
            Candidate(Endpoint("192.0.2.7", 4690), CandidateKind.HOST),
            Candidate(Endpoint("2001:db8::7", 4690), CandidateKind.HOST),
            Candidate(Endpoint("198.51.100.20", 61000), CandidateKind.REFLEXIVE),
        ),
        0,
        1_738_790_000,
        0,
    )
    return Scene(Topic.derive(b"\2" * 32, EPOCH), identity, record, EPOCH * 3600)
