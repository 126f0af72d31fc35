"""With whom this machine gets direct paths. Pure.

Whether two NATs leave room for a direct path follows from RFC 4787's words (``lab.nat_behaviour`` has the
whole model, and a test holds this to it). Where strangers' first datagrams get in to our known endpoint,
everybody gets through. Where only replies get in, the other side's port must be known beforehand. Where our
own mapping is another one for each peer, the other side must not ask for our port, or our NAT must hand its
ports out in order: then we foresee the port, and name it through a relay.
"""

from enum import Enum

from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.port_mapping.external import contradicted
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.netcheck.report import Family, Report, Router, Udp


class Peer(Enum):
    """Kinds of access to the Internet that another member may have."""

    PUBLIC = "public"
    OPEN = "open"
    """Behind a NAT with one mapping for all, which does not filter by port."""
    PORT_RESTRICTED = "port-restricted"
    """The usual home router: one mapping for all, and only replies get in."""
    SYMMETRIC = "symmetric"
    """Another mapping for each peer, and only replies get in."""
    IPV6 = "ipv6"
    """With IPv6, firewalled or not."""


class Verdict(Enum):
    """With whom this machine gets direct paths."""

    ANYONE = "anyone"
    MOST = "most"
    """Not with symmetric NATs."""
    SOME = "some"
    """With public members and open NATs only: this is a symmetric NAT."""
    IPV6 = "ipv6"
    """With members that have IPv6; IPv4 does not work here."""
    NOBODY = "nobody"
    """UDP does not work."""
    UNKNOWN = "unknown"


def direct_with(report: Report) -> dict[Peer, bool | None]:
    """Whether a direct path to each kind of peer can be expected; None: that cannot be told."""
    over_ipv4 = _over_ipv4(report)
    return {**over_ipv4, Peer.IPV6: _over_ipv6(report.ipv6)}


def verdict(report: Report) -> Verdict:
    """:func:`direct_with` in one word."""
    direct = direct_with(report)
    if report.udp is Udp.NO_ANSWER or (report.udp is Udp.NO_ADDRESS):
        return Verdict.NOBODY
    if report.ipv4.udp is not Udp.WORKS:
        return Verdict.IPV6 if direct[Peer.IPV6] else Verdict.UNKNOWN
    match direct[Peer.PORT_RESTRICTED], direct[Peer.SYMMETRIC]:
        case True, True:
            return Verdict.ANYONE
        case True, _:
            return Verdict.MOST
        case False, _:
            return Verdict.SOME
    return Verdict.UNKNOWN


def believed_mapping(report: Report) -> Router | None:
    """The router that forwards an IPv4 port, unless strangers see us at another address than it tells."""
    for router in report.routers or ():
        external = router.external
        if external is None or external.is_ipv6:
            continue
        if not contradicted(external, report.ipv4.outside.public_endpoints):
            return router
    return None


def _over_ipv4(report: Report) -> dict[Peer, bool | None]:
    kinds = (Peer.PUBLIC, Peer.OPEN, Peer.PORT_RESTRICTED, Peer.SYMMETRIC)
    outside = report.ipv4.outside
    match report.ipv4.udp:
        case Udp.NOT_TESTED:
            return dict.fromkeys(kinds)
        case Udp.NO_ANSWER | Udp.NO_ADDRESS:
            return dict.fromkeys(kinds, False)
    if believed_mapping(report) is not None:
        return dict.fromkeys(kinds, True)
    restricted: bool | None
    symmetric: bool | None
    match outside.mapping:
        case Mapping.NONE | Mapping.ENDPOINT_INDEPENDENT:
            restricted = True
            symmetric = {Filtering.NOT_BY_PORT: True, Filtering.BY_PORT: False}.get(outside.filtering)
        case Mapping.ADDRESS_AND_PORT_DEPENDENT:
            restricted, symmetric = outside.ports_in_order is True, False
        case _:
            restricted = None
            symmetric = False if outside.filtering is Filtering.BY_PORT else None
    outward = True if outside.public_endpoints else None
    return dict(zip(kinds, (outward, outward, restricted, symmetric), strict=True))


def _over_ipv6(family: Family) -> bool | None:
    """Firewalls let replies in and translate nothing: both sides' checks open them."""
    match family.udp:
        case Udp.NOT_TESTED:
            return None
        case Udp.NO_ANSWER | Udp.NO_ADDRESS:
            return False
    if family.outside.mapping is Mapping.UNKNOWN:
        return None
    return family.outside.mapping is not Mapping.ADDRESS_AND_PORT_DEPENDENT
