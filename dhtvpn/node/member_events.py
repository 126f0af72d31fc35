"""What is done when the directory, or a search in it, brings the record of a member."""

import time
from ipaddress import IPv4Address

from dhtvpn.discovery.sources import LAN, REMEMBERED
from dhtvpn.identity import short_id
from dhtvpn.membership.addresses import Claim
from dhtvpn.node.background import Background
from dhtvpn.node.parts import Parts
from dhtvpn.records.envelope import OpenedRecord


class MemberEvents:
    """Called by the finder and by searches on demand."""

    def __init__(self, parts: Parts, background: Background) -> None:
        self._parts, self._background = parts, background

    def found(self, opened: OpenedRecord) -> None:
        """A record in the roster topic: of a peer, or of one who becomes a peer unless there are many."""
        if self._parts.members.knows(opened.record.node_key) or not self._parts.on_demand.crowded():
            self.connect(opened)
        else:
            self.contended(opened)

    def connect(self, opened: OpenedRecord) -> None:
        """``opened`` is of a peer from now on."""
        if not self._parts.members.knows(opened.record.node_key):
            source = self._parts.directory.source_of(opened.envelope) or REMEMBERED
            self._parts.reporter.found(opened.record.name, short_id(opened.record.node_key), source)
        nearby = self._parts.directory.has_brought(LAN, opened.envelope)
        self._parts.members.record_arrived(opened.record, opened.sequence, nearby=nearby)
        self.record_seen(opened)
        self._parts.mtu_routes.refresh()  # it may have another IPv4 address now
        self.contended(opened)

    def contended(self, opened: OpenedRecord) -> None:
        """``opened`` may be of somebody who holds our IPv4 address: then one of us moves on."""
        record = opened.record
        claims = [*self._parts.members.claims(), Claim(record.node_key, record.ipv4_attempt, record.since)]
        if self._parts.claim.settle(claims, time.time()):
            self._background.start(self._move(self._parts.claim.address))
            self._parts.events.say(
                "warning", f"another node holds our address: moved to {self._parts.claim.address}"
            )
            self._parts.announcer.announce()

    def record_seen(self, opened: OpenedRecord) -> None:
        """``opened`` is the newest record of a member, news or not."""
        source = self._parts.directory.source_of(opened.envelope) or REMEMBERED
        self._parts.members.record_seen(opened.record.node_key, opened.envelope, source, time.time())
        if self._parts.directory.has_brought(LAN, opened.envelope):
            self._parts.members.heard_nearby(opened.envelope)

    def brought_again(self, envelope: bytes, source: str) -> None:
        """Another source than the first has brought ``envelope``."""
        if source == LAN:
            self._parts.members.heard_nearby(envelope)

    async def _move(self, address: IPv4Address) -> None:
        await self._parts.local_end.move(address)
        self._parts.mtu_routes.routes_lost()
