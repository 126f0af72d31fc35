"""Real records of made-up members, and the judge of what a lookup delivers."""

import random
from dataclasses import dataclass, field

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.identity import Identity
from dhtvpn.lab.simulation import clock
from dhtvpn.records.envelope import open_record, seal
from dhtvpn.records.epochs import epoch_at
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.topic import Topic

LIFETIME_S = 3600


@dataclass
class Publication:
    """One member's record in a network of its own, with every envelope that was ever sealed for it."""

    identity: Identity
    topic: Topic
    record: EndpointRecord
    rng: random.Random
    envelopes: list[bytes] = field(default_factory=list)

    @classmethod
    def make(cls, rng: random.Random, endpoint: Endpoint) -> "Publication":
        identity = Identity.from_seed(rng.randbytes(32))
        topic = Topic.derive(rng.randbytes(32), epoch_at(clock.unix_time()))
        candidates = (Candidate(endpoint, CandidateKind.REFLEXIVE),)
        record = EndpointRecord(identity.node_key, "member", rng.randbytes(16), candidates, 0, 0, 0)
        return cls(identity, topic, record, rng)

    def seal_next(self) -> bytes:
        """The next envelope; its sequence is one higher than that before."""
        expires = int(clock.unix_time()) + LIFETIME_S
        sequence = len(self.envelopes) + 1
        self.envelopes.append(
            seal(self.record, self.topic, self.identity, sequence, expires, self.rng.randbytes)
        )
        return self.envelopes[-1]

    def is_forged(self, envelope: bytes) -> bool:
        """Whether ``envelope`` is none of ours, or does not open."""
        try:
            open_record(envelope, self.topic, clock.unix_time())
        except DecodeError:
            return True
        return envelope not in self.envelopes
