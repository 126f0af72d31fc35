"""Candidates: where a peer may be reached, in ICE's terms (RFC 8445 section 5.1). Pure."""

import ipaddress
from collections.abc import Iterable
from enum import Enum

from aioice.candidate import Candidate, candidate_foundation

from dhtvpn.endpoint import Endpoint

COMPONENT = 1
"""The only component: one stream of datagrams (RFC 8445 section 5.1.2.1)."""

MAX_REMOTE_CANDIDATES = 32
"""Candidates taken from a peer's records. Ours: a record has at most 16, and may change once."""

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class CandidateKind(Enum):
    """Where a candidate comes from. Names equal those of the endpoint record's kinds."""

    HOST = "host"
    REFLEXIVE = "server-reflexive"
    MAPPED = "port mapping"
    PEER_REFLEXIVE = "peer-reflexive"
    PREDICTED = "predicted"
    """A port that the peer's NAT may have given it towards us: checked once."""


def kind_of(kind: Enum | str) -> CandidateKind:
    """Our kind for an enum member or a name of the same name; HOST for one that we do not know."""
    name = kind.name if isinstance(kind, Enum) else kind.upper()
    return CandidateKind.__members__.get(name, CandidateKind.HOST)


_TYPE: dict[CandidateKind, tuple[str, int]] = {
    # (aioice's type, type preference of RFC 8445 section 5.1.2.2)
    CandidateKind.HOST: ("host", 126),
    CandidateKind.PEER_REFLEXIVE: ("prflx", 110),
    CandidateKind.PREDICTED: ("srflx", 108),
    CandidateKind.MAPPED: ("srflx", 105),
    CandidateKind.REFLEXIVE: ("srflx", 100),
}


def priority(kind: CandidateKind, endpoint: Endpoint, position: int) -> int:
    """RFC 8445 section 5.1.2.1, IPv6 before IPv4 of equal position (RFC 8421 section 4)."""
    local_preference = max(0, 65535 - 2 * position - (0 if endpoint.is_ipv6 else 1))
    return _TYPE[kind][1] << 24 | local_preference << 8 | 256 - COMPONENT


def ice_candidate(endpoint: Endpoint, kind: CandidateKind, position: int) -> Candidate:
    """As aioice wants it. ``position`` in the peer's list: earlier is better."""
    kind_name = _TYPE[kind][0]
    return Candidate(
        foundation=candidate_foundation(kind_name, "udp", endpoint.host),
        component=COMPONENT,
        transport="udp",
        priority=priority(kind, endpoint, position),
        host=endpoint.host,
        port=endpoint.port,
        type=kind_name,
    )


def usable(endpoint: Endpoint, families: Iterable[int], loopback: bool) -> bool:
    """May a check be sent to this candidate of a peer?

    Not to multicast, broadcast or unspecified addresses, to IPv6 link-local ones only where it is known on
    which link of ours, and to loopback only when we are reached there ourselves.
    """
    try:
        address = ipaddress.ip_address(endpoint.host)
    except ValueError:
        return False
    if address.version not in families or not 0 < endpoint.port < 65536:
        return False
    if address.is_multicast or address.is_unspecified or address == _BROADCAST:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return False
    if endpoint.is_link_local and not endpoint.zone:
        return False
    return loopback or not address.is_loopback
