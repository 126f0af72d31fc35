"""What a node keeps on disk besides its keys, so that a restart needs neither directory nor bootstrap node:
where each member answered last, which DHT nodes answered, and how far the members' records had come."""

import time
from collections.abc import Callable

from dhtvpn.discovery.remembered import RememberedContacts, RememberedPeer, RememberedPeers
from dhtvpn.endpoint import Endpoint
from dhtvpn.membership.addresses import Claim
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.floors import Floors
from dhtvpn.node.members import Member, Members
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.records.roster import Roster

FORGET_AFTER_S = 30 * 24 * 3600.0
"""A member not heard of for a month is not tried again from memory."""


class Memory:
    """Writes members and contacts down, and reads them back at the next start."""

    def __init__(
        self,
        peers: RememberedPeers,
        contacts: RememberedContacts,
        *,
        members: Members,
        tunnels: Tunnels,
        known_contacts: Callable[[], list[Endpoint]],
        record_recalled: Callable[[bytes], None] = lambda envelope: None,
        floors: Floors | None = None,
        roster: Roster | None = None,
        announcer: Announcer | None = None,
    ) -> None:
        """``record_recalled`` gets each remembered member's newest envelope, once the member is known."""
        self._peers = peers
        self._contacts = contacts
        self._members = members
        self._tunnels = tunnels
        self._known_contacts = known_contacts
        self._record_recalled = record_recalled
        self._floors, self._roster, self._announcer = floors, roster, announcer
        self._last_seen: dict[bytes, float] = {}

    def recall(self) -> list[Endpoint]:
        """Start towards every remembered member; return the remembered DHT contacts, best first.

        Members are DHT nodes too, so where they answered comes after the contacts.
        """
        self._recall_floors()
        now = time.time()
        contacts = self._contacts.load()
        for peer in self._peers.load().values():
            if now - peer.last_seen > FORGET_AFTER_S:
                continue
            self._last_seen[peer.node_key] = peer.last_seen
            claim = Claim(peer.node_key, peer.ipv4_attempt, peer.ipv4_since)
            self._members.remember(
                claim, peer.name, list(peer.endpoints), peer.tunnel_timestamp, peer.sequence
            )
            if peer.envelope is not None:
                self._record_recalled(peer.envelope)
            contacts.extend(peer.endpoints[:1])
        return list(dict.fromkeys(contacts))

    def save(self) -> None:
        """Replace the files. Raises SystemRefusedError; what was on disk before is then unchanged."""
        self._peers.save(self._remembered(member) for member in self._members.all())
        known = self._known_contacts()
        if known:
            self._contacts.save(known)

        if self._floors is not None and self._roster is not None and self._announcer is not None:
            self._floors.save(self._announcer.sequence, self._roster.floors())

    def _recall_floors(self) -> None:
        if self._floors is not None and self._roster is not None and self._announcer is not None:
            own, members = self._floors.load()
            self._roster.restore(members)
            self._announcer.sequence = max(self._announcer.sequence, own)

    def _remembered(self, member: Member) -> RememberedPeer:
        """Without link-local endpoints: interfaces have other numbers after a restart of the machine."""
        node_key = member.claim.node_key
        if member.peer.path is not None:
            self._last_seen[node_key] = time.time()
        return RememberedPeer(
            node_key=node_key,
            name=member.peer.name,
            endpoints=tuple(each for each in member.connector.known_endpoints if not each.is_link_local),
            last_seen=max(self._last_seen.get(node_key, 0.0), member.record_seen_at),
            tunnel_timestamp=self._tunnels.greatest_timestamp(member.peer),
            sequence=member.sequence,
            ipv4_attempt=member.claim.attempt,
            ipv4_since=member.claim.since,
            envelope=member.envelope,
        )
