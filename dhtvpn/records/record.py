"""The endpoint record: what a member tells the others about itself (docs/protocol/record.md).

A CBOR array: [version, node key, name, session nonce, [[kind, address], ...], ipv4 attempt, since,
features, leaving, NAT]; the last may be missing. Later versions grow at the end: elements beyond these and
candidates of kinds that are not known here are skipped. Overlay addresses are not in it: they are computed
from the node key.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.records import strict_cbor

RECORD_VERSION = 1
NODE_KEY_SIZE = 32
NONCE_SIZE = 16
MAX_NAME = 63
"""Characters of a host name's label (RFC 1123 section 2.1)."""
MAX_CANDIDATES = 16
MAX_RECORD = 576
"""Bytes of an encoded record. The largest one of this version has 471; the rest is room to grow."""
MAX_ATTEMPTS = 16
"""As in membership.addresses; a test holds the two together."""

_FIELDS = 9
_MAX_FEATURES = 1 << 32
_MAX_SINCE = 1 << 40
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class CandidateKind(Enum):
    """Where a candidate comes from. The value is the number on the wire."""

    HOST = 1
    """An address of the node's own interfaces."""
    REFLEXIVE = 2
    """What others saw as the source of the node's datagrams."""
    MAPPED = 3
    """A port that the router has opened on request."""
    RELAY = 4
    """A volunteer that relays to the node: not a place to check, but one to send through."""
    PREDICTED = 5
    """A port that the node's NAT may have given it towards the receiver of a signal; never in a record."""


class PublishedMapping(IntEnum):
    """How a NAT picks the public port (RFC 4787 section 4.1). The value is the number on the wire."""

    UNKNOWN = 0
    NONE = 1
    ENDPOINT_INDEPENDENT = 2
    DEPENDENT = 3


class PublishedFiltering(IntEnum):
    """Whether a NAT lets in what comes from another port (RFC 4787 section 5)."""

    UNKNOWN = 0
    NOT_BY_PORT = 1
    BY_PORT = 2


@dataclass(frozen=True)
class NatBehaviour:
    """What a member has found out about the NAT in front of it."""

    mapping: PublishedMapping = PublishedMapping.UNKNOWN
    filtering: PublishedFiltering = PublishedFiltering.UNKNOWN

    def punches(self, other: "NatBehaviour") -> bool | None:
        """Whether checks between the two public endpoints get through: not where one side's port cannot be
        foreseen and the other's NAT asks for it. None where too little is known."""
        for one, facing in ((self, other), (other, self)):
            if one.mapping is PublishedMapping.DEPENDENT and facing.filtering is PublishedFiltering.BY_PORT:
                return False
        known = {PublishedMapping.NONE, PublishedMapping.ENDPOINT_INDEPENDENT}
        if {self.mapping, other.mapping} <= known:
            return True
        for one, facing in ((self, other), (other, self)):
            foreseen = one.mapping in known
            if not foreseen and facing.filtering is not PublishedFiltering.NOT_BY_PORT:
                if facing.mapping is PublishedMapping.NONE:
                    continue
                return None
        return True


NOTHING_KNOWN = NatBehaviour()


@dataclass(frozen=True)
class Candidate:
    """One endpoint at which the node may be reached."""

    endpoint: Endpoint
    kind: CandidateKind


@dataclass(frozen=True)
class EndpointRecord:
    """Who a member is, which run of it, and where it may be reached.

    Raises ValueError when a field is out of its range: a node cannot publish what others refuse.
    """

    node_key: bytes
    """Ed25519 public key, 32 bytes."""
    name: str
    """A host name label in lower case, 1 to 63 characters."""
    session_nonce: bytes = field(repr=False)
    """16 bytes, drawn when the node started."""
    candidates: tuple[Candidate, ...]
    """At most 16, best first."""
    ipv4_attempt: int
    """Which of its IPv4 addresses the node claims (membership.addresses)."""
    since: int
    """Unix seconds since when it claims it."""
    features: int
    """Bit set of 32, the same as in the hello frame."""
    leaving: bool = False
    """The node is going away: the last record of this run."""
    nat: NatBehaviour = NOTHING_KNOWN
    """What the node has found out about the NAT in front of it."""

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise ValueError(problem)


def encode(record: EndpointRecord) -> bytes:
    """The CBOR bytes of ``record``, at most MAX_RECORD."""
    candidates = [[candidate.kind.value, candidate.endpoint.pack()] for candidate in record.candidates]
    fields = [
        RECORD_VERSION,
        record.node_key,
        record.name,
        record.session_nonce,
        candidates,
        record.ipv4_attempt,
        record.since,
        record.features,
        record.leaving,
    ]
    if record.nat != NOTHING_KNOWN:
        fields.append(record.nat.mapping | record.nat.filtering << 2)
    return strict_cbor.encode(fields)


def decode(data: bytes) -> EndpointRecord:
    """The reverse of :func:`encode`. Raises DecodeError("format")."""
    if len(data) > MAX_RECORD:
        raise DecodeError("format", "record too long")
    fields = strict_cbor.decode(data)
    if len(fields) < _FIELDS:
        raise DecodeError("format", "record has too few fields")
    version, node_key, name, nonce, candidates, attempt, since, features, leaving = fields[:_FIELDS]
    kinds = (bytes, str, bytes, list, int, int, int, bool)
    for value, kind in zip(fields[1:_FIELDS], kinds, strict=True):
        if type(value) is not kind:
            raise DecodeError("format", "field of another type")
    if type(version) is not int or version < RECORD_VERSION or len(candidates) > MAX_CANDIDATES:
        raise DecodeError("format", "version or candidates")
    known = tuple(found for item in candidates if (found := _decode_candidate(item)) is not None)
    try:
        return EndpointRecord(
            node_key, name, nonce, known, attempt, since, features, leaving, _nat(fields[_FIELDS:])
        )
    except ValueError as error:
        raise DecodeError("format", str(error)) from error


def _nat(more: list[Any]) -> NatBehaviour:
    """Of the elements after the first nine. What is not known here (3) is unknown."""
    value = more[0] if more and type(more[0]) is int else 0
    mapping, filtering = value & 3, value >> 2 & 3
    return NatBehaviour(PublishedMapping(mapping), PublishedFiltering(filtering % 3))


def _decode_candidate(item: Any) -> Candidate | None:
    """None for a kind that is not known here. Raises DecodeError("format")."""
    if type(item) is not list or len(item) < 2 or type(item[0]) is not int or type(item[1]) is not bytes:
        raise DecodeError("format", "candidate")
    try:
        kind = CandidateKind(item[0])
    except ValueError:
        return None
    if kind is CandidateKind.PREDICTED:
        return None
    try:
        endpoint = Endpoint.unpack(item[1])
    except DecodeError as error:
        raise DecodeError("format", "candidate address") from error
    if endpoint.pack() != item[1]:
        raise DecodeError("format", "IPv4 written as IPv6")
    return Candidate(endpoint, kind)


def _problem(record: EndpointRecord) -> str | None:
    """The first field that is out of its range, or None."""
    checks = {
        "node_key": len(record.node_key) == NODE_KEY_SIZE,
        "name": _NAME.fullmatch(record.name) is not None,
        "session_nonce": len(record.session_nonce) == NONCE_SIZE,
        "candidates": len(record.candidates) <= MAX_CANDIDATES
        and all(
            _is_unicast(candidate.endpoint) and candidate.kind is not CandidateKind.PREDICTED
            for candidate in record.candidates
        ),
        "ipv4_attempt": 0 <= record.ipv4_attempt < MAX_ATTEMPTS,
        "since": 0 <= record.since < _MAX_SINCE,
        "features": 0 <= record.features < _MAX_FEATURES,
    }
    return next((f"{name} is out of range" for name, fits in checks.items() if not fits), None)


def _is_unicast(endpoint: Endpoint) -> bool:
    """No group, no "any", no broadcast: a member must not turn our checks on a whole segment."""
    address = ipaddress.ip_address(endpoint.host)
    return (
        0 < endpoint.port < 65536
        and not address.is_multicast
        and not address.is_unspecified
        and endpoint.host != "255.255.255.255"
    )
