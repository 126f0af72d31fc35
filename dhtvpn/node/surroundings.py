"""What this node can be reached at: its own addresses, its public endpoints, and the kind of NAT.

Every DHT node answers STUN, so the public endpoint is learnt from the contacts of the directory, from
two or more where there are two: equal answers mean endpoint-independent mapping (RFC 4787 section 4.1).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from dhtvpn.endpoint import Endpoint
from dhtvpn.membership.addresses import ipv4_network, ipv6_network
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.port_mapping.external import contradicted
from dhtvpn.nat.reflexive import FamilySurvey, Mapping, Survey
from dhtvpn.records.record import (
    MAX_CANDIDATES,
    Candidate,
    CandidateKind,
    NatBehaviour,
    PublishedFiltering,
    PublishedMapping,
)
from dhtvpn.system.links import LinkLocal

log = logging.getLogger(__name__)

HostAddress = IPv4Address | IPv6Address

MAX_FILTER_SERVERS = 3
"""Asked one after the other while they do not answer: old ones do not know the question."""

MAX_LINK_LOCAL = 2
"""Link-local addresses that our record tells, and that are taken from a peer's."""

MAX_LINKS_TRIED = 4
"""Interfaces of ours on which a neighbour's link-local address is tried: it does not say on which it is."""

_MAPPINGS = {
    Mapping.UNKNOWN: PublishedMapping.UNKNOWN,
    Mapping.NONE: PublishedMapping.NONE,
    Mapping.ENDPOINT_INDEPENDENT: PublishedMapping.ENDPOINT_INDEPENDENT,
    Mapping.ADDRESS_AND_PORT_DEPENDENT: PublishedMapping.DEPENDENT,
}
_FILTERINGS = {
    Filtering.UNKNOWN: PublishedFiltering.UNKNOWN,
    Filtering.NOT_BY_PORT: PublishedFiltering.NOT_BY_PORT,
    Filtering.BY_PORT: PublishedFiltering.BY_PORT,
}


@dataclass(frozen=True)
class PortsInOrder:
    """Where servers have seen us, which our NAT has given one port after the other when they were asked, at
    ``asked_at`` (the loop's time). ``witness`` is one of those who still answer."""

    witness: Endpoint
    seen: tuple[Endpoint, ...]
    asked_at: float


class Surveyor(Protocol):
    """Asks STUN servers, over the node's own port, where they see it."""

    async def __call__(self, servers: Sequence[Endpoint], own: Sequence[HostAddress]) -> Survey: ...


async def _nobody_knows(server: Endpoint) -> Filtering:
    return Filtering.UNKNOWN


class Surroundings:
    """Keeps the newest survey and turns it, with the host's addresses, into candidates."""

    def __init__(
        self,
        *,
        network_id: NetworkId,
        port: int,
        host_addresses: Callable[[], Awaitable[Sequence[HostAddress]]],
        survey: Surveyor,
        find_filtering: Callable[[Endpoint], Awaitable[Filtering]] = _nobody_knows,
        link_locals: Callable[[], Awaitable[Sequence[LinkLocal]]] | None = None,
    ) -> None:
        """``link_locals``: this machine's link-local addresses; without, none are told or used."""
        self._overlay = (ipv4_network(network_id), ipv6_network(network_id))
        self._port = port
        self._host_addresses = host_addresses
        self._ask = survey
        self._find_filtering = find_filtering
        self._link_local_addresses = link_locals
        self._hosts: tuple[Endpoint, ...] = ()
        self._link_locals: tuple[LinkLocal, ...] = ()
        self.mapping = Mapping.UNKNOWN
        self.filtering = Filtering.UNKNOWN
        self.ports_in_order: PortsInOrder | None = None
        """Where the NAT hands ports out in order; None where it does not, or that is not known."""
        self.answered = True
        """Whether anybody has answered the last survey."""
        self.public_endpoints: tuple[Endpoint, ...] = ()
        self.mapped_endpoints: tuple[Endpoint, ...] = ()
        """Where routers say that they forward to this node's port, whether or not that is believed."""

    async def look(self, servers: Sequence[Endpoint]) -> bool:
        """Read the host's addresses, survey through ``servers``; return whether the candidates changed,
        or the links where neighbours may be.

        An unanswered survey changes nothing: what was learnt before is still the best guess. Servers are
        strangers: an endpoint that nobody could send to, such as a group's, is left out. Raises
        SystemRefusedError when the kernel does not tell the addresses.
        """
        before = self.candidates(), self._link_locals
        addresses = await self._host_addresses()
        self._hosts = tuple(Endpoint(str(address), self._port) for address in addresses)
        if self._link_local_addresses is not None:
            self._link_locals = tuple(await self._link_local_addresses())
        asked_at = asyncio.get_running_loop().time()
        survey = await self._ask(servers, addresses)
        public = tuple(endpoint for endpoint in survey.public_endpoints if self.may_send_to(endpoint))
        self.answered = bool(public)
        if public:
            self.mapping = survey.mapping
            self._note_order(survey.by_family.get(4, FamilySurvey()), asked_at)
        self.public_endpoints = (*public, *self._still_likely(public))
        return (self.candidates(), self._link_locals) != before

    def _note_order(self, ipv4: FamilySurvey, asked_at: float) -> None:
        """Later surveys find ports again that they have seen before, in whatever order; so what one has found
        holds until they see us at another address."""
        if ipv4.in_order:
            self.ports_in_order = PortsInOrder(ipv4.witnesses[0], ipv4.public_endpoints, asked_at)
        elif self.ports_in_order is not None and ipv4.witnesses:
            old = {endpoint.host for endpoint in self.public_endpoints}
            moved = not any(endpoint.host in old for endpoint in ipv4.public_endpoints)
            other = moved or ipv4.mapping in (Mapping.NONE, Mapping.ENDPOINT_INDEPENDENT)
            found = replace(self.ports_in_order, witness=ipv4.witnesses[0])
            self.ports_in_order = None if other else found

    def _still_likely(self, public: Sequence[Endpoint]) -> list[Endpoint]:
        """Public endpoints learnt before, of families that this survey said nothing of, as long as the host
        has an address of the family."""
        told = {endpoint.is_ipv6 for endpoint in public}
        has = {endpoint.is_ipv6 for endpoint in self._hosts}
        return [old for old in self.public_endpoints if old.is_ipv6 in has and old.is_ipv6 not in told]

    @property
    def nat(self) -> NatBehaviour:
        """What the record says of the NAT in front of us."""
        return NatBehaviour(_MAPPINGS[self.mapping], _FILTERINGS[self.filtering])

    async def look_at_filtering(self, servers: Sequence[Endpoint]) -> bool:
        """Ask servers in turn whether our NAT filters by port, until one knows; return whether that is news.
        Without a NAT there is nothing to ask."""
        before = self.filtering
        if self.mapping is Mapping.NONE or not self.public_endpoints:
            self.filtering = Filtering.UNKNOWN
            return self.filtering is not before
        for server in [server for server in servers if not server.is_ipv6][:MAX_FILTER_SERVERS]:
            found = await self._find_filtering(server)
            if found is not Filtering.UNKNOWN:
                self.filtering = found
                break
        return self.filtering is not before

    def has_choice(self, ipv6: bool) -> bool:
        """Whether this host has several addresses in a family."""
        return sum(endpoint.is_ipv6 == ipv6 for endpoint in self._hosts) > 1

    def candidates(self) -> tuple[Candidate, ...]:
        """Host, mapped and reflexive candidates (RFC 8445 section 5.1.1), without duplicates, at most as
        many as a record holds. A mapping at another address than strangers see us at is left out: its
        router is behind another NAT, or does not tell the truth. Where each server sees another port of ours,
        the first is as good as all. Link-local addresses come last, without their zone, of interfaces without
        any other IPv6 address: elsewhere they would add nothing."""
        hosts = [endpoint for endpoint in self._hosts if self.may_send_to(endpoint)]
        alone = [Endpoint(str(each.address), self._port) for each in self._link_locals if each.alone]
        hosts += alone[:MAX_LINK_LOCAL]
        found = dict.fromkeys(hosts, CandidateKind.HOST)
        for endpoint in self.mapped_endpoints:
            if self.may_send_to(endpoint) and not contradicted(endpoint, self.public_endpoints):
                found.setdefault(endpoint, CandidateKind.MAPPED)
        seen = {endpoint.host: endpoint for endpoint in reversed(self.public_endpoints)}
        dependent = self.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT
        for endpoint in self.public_endpoints:
            if not dependent or seen[endpoint.host] == endpoint:
                found.setdefault(endpoint, CandidateKind.REFLEXIVE)
        reflexive_first = sorted(found.items(), key=lambda item: item[1] is CandidateKind.HOST)
        return tuple(Candidate(endpoint, kind) for endpoint, kind in reflexive_first[:MAX_CANDIDATES])

    def usable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Of a peer's candidates, those that a datagram may be sent to: no loopback, multicast, link-local or
        unspecified address, and none inside the overlay itself (a tunnel through itself)."""
        return [candidate for candidate in candidates if self.may_send_to(candidate.endpoint)]

    def on_our_links(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Of the candidates of a neighbour, one that has been heard on a local link, the link-local ones, on
        each of our interfaces where they may be: so many that with the others they are no more than a record
        holds."""
        told = [
            candidate
            for candidate in candidates
            if candidate.endpoint.is_link_local and candidate.kind is CandidateKind.HOST
        ]
        zones = dict.fromkeys(each.interface for each in self._link_locals)
        found = [
            Candidate(candidate.endpoint.in_zone(zone), CandidateKind.HOST)
            for candidate in told[:MAX_LINK_LOCAL]
            for zone in list(zones)[:MAX_LINKS_TRIED]
        ]
        room = max(0, MAX_CANDIDATES - len(candidates) + len(told))
        return [candidate for candidate in found if candidate.endpoint.zone][:room]

    def may_send_to(self, endpoint: Endpoint) -> bool:
        """Whether a datagram may be sent to ``endpoint`` because somebody, perhaps far away, has named it."""
        if endpoint.is_link_local:
            return False
        address = ip_address(endpoint.host)
        if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_reserved:
            return False
        return not any(address in network for network in self._overlay if network.version == address.version)
