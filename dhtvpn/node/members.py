"""Turns verified records into peers: one place where the roster, the peer table and the paths meet."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from dhtvpn.discovery.sources import REMEMBERED
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.identity import Identity, short_id, tunnel_public_key
from dhtvpn.membership.addresses import Claim, holders, ipv6_address
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.membership.pairwise import ice_credentials, tunnel_psk
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.node.connector import AgentMaker, Connector, no_relays, nothing_first
from dhtvpn.node.relaying import Relaying
from dhtvpn.node.surroundings import Surroundings
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.node.turns import Turns
from dhtvpn.records.record import (
    NOTHING_KNOWN,
    Candidate,
    CandidateKind,
    EndpointRecord,
    NatBehaviour,
)

log = logging.getLogger(__name__)


@dataclass
class Member:
    """Another node: its peer entry, the way to it, and its claim to an IPv4 address."""

    peer: Peer
    connector: Connector
    claim: Claim
    sequence: int = 0
    found_by: str | None = None
    """The source that brought its first record in this run, or "remembered"."""
    envelope: bytes | None = None
    """Its newest record as published, for the disk."""
    record_seen_at: float = 0.0
    """Unix seconds; 0 when no record was seen in this run."""
    nat: NatBehaviour = NOTHING_KNOWN
    """What it has found out about the NAT in front of it."""
    unusable: tuple[Candidate, ...] = ()
    """Candidates of its record that no datagram may be sent to (``Surroundings.may_send_to``), but for those
    of another link than ours."""
    told: tuple[Candidate, ...] = ()
    """The candidates of its record."""
    nearby: bool = False
    """That record has been heard on a local link: the member is on one of ours."""


class Members:
    """Every other node of the network that this one knows, from records or from memory."""

    def __init__(
        self,
        *,
        network_id: NetworkId,
        identity: Identity,
        session_nonce: bytes,
        table: PeerTable,
        tunnels: Tunnels,
        surroundings: Surroundings,
        make_agent: AgentMaker,
        changed: Callable[[Peer], None],
        doubt: Callable[[Peer], None],
        may_probe: Callable[[Endpoint], bool],
        drops: Drops,
        relaying: Relaying | None = None,
        attempt_begins: Callable[[Peer], Awaitable[None]] = nothing_first,
        attempt_failed: Callable[[Peer, int], None] = lambda peer, number: None,
        heard_direct: Callable[[Peer, Endpoint], None] = lambda peer, endpoint: None,
    ) -> None:
        self._heard_direct = heard_direct
        self._attempt_begins = attempt_begins
        self._attempt_failed = attempt_failed
        self._relaying = relaying
        self._network_id = network_id
        self._identity = identity
        self._session_nonce = session_nonce
        self._table = table
        self._tunnels = tunnels
        self._surroundings = surroundings
        self._make_agent = make_agent
        self._changed = changed
        self._doubt = doubt
        self._may_probe = may_probe
        self._drops = drops
        self._members: dict[bytes, Member] = {}
        self._turns = Turns()

    def all(self) -> list[Member]:
        return list(self._members.values())

    def knows(self, node_key: bytes) -> bool:
        """Whether ``node_key`` is a peer already."""
        return node_key in self._members

    def claims(self) -> list[Claim]:
        return [member.claim for member in self._members.values()]

    def of(self, peer: Peer) -> Member | None:
        """The member behind ``peer``; None for a stock peer."""
        return self._members.get(peer.node_key) if peer.node_key is not None else None

    def remember(
        self, claim: Claim, name: str, endpoints: list[Endpoint], timestamp: bytes | None, sequence: int
    ) -> None:
        """A member known from an earlier run: try where it answered last, without waiting for anyone."""
        member = self._add(claim, name, timestamp)
        if member is None:
            return
        member.sequence = sequence
        member.found_by = REMEMBERED
        member.connector.known_endpoints = [e for e in endpoints if self._surroundings.may_send_to(e)]
        if member.connector.known_endpoints:
            member.connector.start()

    def record_seen(self, node_key: bytes, envelope: bytes, source: str, unix_time: float) -> None:
        """``envelope`` is the newest of this member, and ``source`` brought it."""
        member = self._members.get(node_key)
        if member is not None:
            member.envelope = envelope
            member.record_seen_at = unix_time
            member.found_by = member.found_by or source

    def heard_nearby(self, envelope: bytes) -> None:
        """``envelope`` has come over a local link. Where it is the newest of a member, that is a neighbour,
        and the link-local addresses in it are ours to try."""
        for member in self._members.values():
            if member.envelope == envelope and not member.nearby:
                member.nearby = True
                self._try_links(member)

    def links_changed(self) -> None:
        """We may have other link-local addresses than before: neighbours may be on those links."""
        for member in self._members.values():
            self._try_links(member)

    def _try_links(self, member: Member) -> None:
        found = self._surroundings.on_our_links(member.told) if member.nearby else []
        if any(candidate not in member.connector.candidates for candidate in found):
            member.connector.candidates_told(found)

    def record_arrived(self, record: EndpointRecord, sequence: int, *, nearby: bool = False) -> None:
        """A verified record that is news to the roster; ``nearby``: it has come over a local link. Raises
        nothing: bad keys are dropped and counted."""
        claim = Claim(record.node_key, record.ipv4_attempt, record.since)
        member = self._members.get(record.node_key)
        if member is None:
            member = self._add(claim, record.name, None)
        if member is None or sequence < member.sequence:
            return
        member.sequence = sequence
        member.peer.name = record.name
        member.nat = record.nat
        if record.leaving:
            member.connector.gone()
            return
        if claim != member.claim:
            member.claim = claim
            self._assign_ipv4()
        usable = self._surroundings.usable(record.candidates)
        local = [each for each in record.candidates if each.endpoint.is_link_local]
        member.unusable = tuple(each for each in record.candidates if each not in (*usable, *local))
        member.told, member.nearby = record.candidates, nearby
        if nearby:
            usable += self._surroundings.on_our_links(record.candidates)
        relays = (candidate.endpoint for candidate in usable if candidate.kind is CandidateKind.RELAY)
        member.peer.relays = tuple(relays)
        self._candidates_arrived(member, record.session_nonce, usable)

    def signalled(self, peer: Peer, nonce: bytes, candidates: Sequence[Candidate]) -> None:
        """The peer itself says where it may be reached in this run of it, and tries for a direct path now."""
        member = self.of(peer)
        if member is None:
            return
        usable = self._surroundings.usable(candidates)
        others = [candidate for candidate in usable if candidate.kind is not CandidateKind.PREDICTED]
        hosts = {candidate.endpoint.host for candidate in (*others, *member.connector.candidates)}
        predicted = [each for each in usable if each not in others and each.endpoint.host in hosts]
        if member.connector.nonce != nonce:
            self._candidates_arrived(member, nonce, others)
        else:
            direct = [candidate for candidate in others if candidate.kind is not CandidateKind.RELAY]
            member.connector.candidates_told(direct)
        if predicted:
            member.connector.ports_predicted(predicted)

    def _candidates_arrived(self, member: Member, nonce: bytes, usable: Sequence[Candidate]) -> None:
        node_key = member.claim.node_key
        credentials = ice_credentials(
            self._identity.shared_secret(node_key),
            self._identity.node_key,
            self._session_nonce,
            node_key,
            nonce,
        )
        direct = [candidate for candidate in usable if candidate.kind is not CandidateKind.RELAY]
        member.connector.record_arrived(nonce, credentials, direct)

    def record_expired(self, node_key: bytes) -> None:
        """The directory has no record of the member any more. A session that works goes on without."""
        member = self._members.get(node_key)
        if member is not None and member.peer.path is None:
            member.connector.gone()

    def checked(self, ufrag: str) -> None:
        """A connectivity check that no agent of ours waits for: its sender has lost the path to us."""
        for member in self._members.values():
            if member.connector.ufrag == ufrag:
                member.connector.checked_by_peer()

    async def forget(self, node_key: bytes) -> None:
        """A member is no peer any more: a packet to it has it looked up again."""
        member = self._members.get(node_key)
        if member is None:
            return
        await member.connector.close()
        if self._members.pop(node_key, None) is not None:
            self._tunnels.remove(member.peer)
            self._table.remove(member.peer)
            self._assign_ipv4()

    async def close(self) -> None:
        for member in self._members.values():
            await member.connector.close()

    def _add(self, claim: Claim, name: str, timestamp: bytes | None) -> Member | None:
        try:
            tunnel_key = tunnel_public_key(claim.node_key)
        except DecodeError as error:
            self._drops.count("record", error.reason)
            return None
        if tunnel_key in self._table:
            # Two node keys can share a tunnel key (they differ in a sign); the one known first stays.
            self._drops.count("record", "tunnel_key_taken")
            return None
        peer = self._table.add(
            tunnel_key=tunnel_key,
            node_key=claim.node_key,
            id=short_id(claim.node_key),
            name=name,
            ipv4=None,
            ipv6=ipv6_address(self._network_id, claim.node_key),
        )
        if peer is None:
            self._drops.count("node", "peer_table_full")
            return None
        connector = Connector(
            peer,
            tunnels=self._tunnels,
            make_agent=self._make_agent,
            own_candidates=self._surroundings.candidates,
            changed=self._changed,
            turns=self._turns,
            ways_by_relay=no_relays if self._relaying is None else self._relaying.ways_to,
            doubt=self._doubt,
            may_probe=self._may_probe,
            attempt_begins=self._attempt_begins,
            attempt_failed=self._attempt_failed,
            heard_direct=self._heard_direct,
        )
        if self._relaying is not None:
            self._relaying.peer_added(peer)
        member = Member(peer, connector, claim)
        self._members[claim.node_key] = member
        psk = tunnel_psk(self._network_id.secret, self._identity.node_key, claim.node_key)
        self._tunnels.add(peer, psk, timestamp)
        self._assign_ipv4()
        log.info("peer %s (%s) is a member", peer.id, name)
        return member

    def _assign_ipv4(self) -> None:
        """Give each IPv4 address to the member with the best claim to it; the others have none until
        they have moved on."""
        standing = {claim: address for address, claim in holders(self._network_id, self.claims()).items()}
        for member in self._members.values():
            address = standing.get(member.claim)
            if member.peer.ipv4 != address:
                member.peer.ipv4 = address
                self._tunnels.update_allowed_ips(member.peer)
