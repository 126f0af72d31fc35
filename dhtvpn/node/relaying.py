"""Paths through relays: which there are to a peer, and what goes through them beside its data.

Data messages pass between engine and relay; handshake messages pass here. A way through a relay is written
as an endpoint (mesh.relayed), so whoever keeps and compares endpoints needs not know of relays.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.membership.relay_claims import relay_claim
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.mesh.relay_wire import (
    HANDSHAKE_MARK,
    arrived_handshake,
    frame_header,
    relay_id,
    unwrap_handshake,
    wrap_handshake,
)
from dhtvpn.mesh.relayed import Place, place_of, relayed
from dhtvpn.node.neighbourhood import Neighbourhood, key_of
from dhtvpn.node.relay_client import RelayClient
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.records.epochs import epoch_at, lookup_epochs

log = logging.getLogger(__name__)

MAX_PUBLISHED: Final = 2
"""Volunteers of a peer's record that we register at: a hostile record must not send us around the world."""
MAX_ROUTES: Final = 3
"""Ways through members that are tried at once."""
GUEST_DEADLINE_S: Final = 0.7
"""How long a way through a volunteer that does not know us yet is waited for."""
FAILED_S: Final = 30.0
"""How long a relay that failed for a peer is not used for it."""
EPOCH_CHECK_S: Final = 30.0


class MemberWay(NamedTuple):
    """A way through members: the peer number of the first, and what gossip calls those beyond it."""

    carrier: int
    through: tuple[bytes, ...] = ()


class Relaying:
    """Numbers the relays, knows everybody's relay ids, and chooses. ``send`` sends a datagram;
    ``path_failed`` is told of a peer whose relay does not know it."""

    def __init__(
        self,
        *,
        secret: bytes,
        own_key: bytes,
        table: PeerTable,
        send: Callable[[bytes, Endpoint], object],
        homes_changed: Callable[[], None],
        path_failed: Callable[[Peer], None],
        stranger: Callable[[], None],
        drops: Drops,
        neighbourhood: Neighbourhood,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self.neighbourhood = neighbourhood
        self._secret, self._own_key, self._table = secret, own_key, table
        self._send, self._path_failed, self._stranger = send, path_failed, stranger
        self._homes_changed = homes_changed
        self._drops, self._unix_time = drops, unix_time
        self._tunnels: Tunnels | None = None
        self._vias: dict[Endpoint | MemberWay, int] = {}
        self._ways: dict[int, Endpoint | MemberWay] = {}
        self._next_via = 1
        self._failed: dict[Place, float] = {}
        self._epochs: list[int] = []
        self._own_ids: tuple[bytes, ...] = ()
        self._claims: tuple[bytes, ...] = ()
        self._peers_by_id: dict[bytes, Peer] = {}
        self._peers_known = -1
        self.client = RelayClient(
            send=send,
            claims=self.claims,
            changed=self._moved_in,
            not_here=self._not_here,
            lost=self._volunteer_lost,
            drops=drops,
        )

    def use(self, tunnels: Tunnels) -> None:
        """Whose engine is told of relays."""
        self._tunnels = tunnels
        tunnels.way_heard = self.way_heard
        self._follow_epoch()

    async def run(self, candidates: Callable[[], Sequence[Endpoint]]) -> None:
        """Find volunteers among ``candidates`` and keep up with the epochs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.client.run(candidates))
            group.create_task(self._follow_epochs())
            group.create_task(self.neighbourhood.run())

    def claims(self) -> Sequence[bytes]:
        """What we show volunteers: of the present epoch, and of the others in which members may be."""
        self._follow_epoch()
        return self._claims

    def peer_added(self, peer: Peer) -> None:
        """Compute what relays call ``peer``, before the engine hears of it."""
        if peer.node_key is not None:
            self._follow_epoch()
            peer.relay_ids = self._ids_of(peer.node_key)

    def may_carry(self, peer: Peer) -> None:
        """``peer`` relays for members: what it brings us has come by a way that has a number."""
        if peer.relays_for_members:
            self._number(MemberWay(peer.number))

    def carrier_lost(self, carrier: Peer) -> None:
        """The direct path to a member is gone: whoever is reached through it has to be reached otherwise."""
        for peer in self._table.all():
            way = self._way_of(peer.endpoint)
            if isinstance(way, MemberWay) and way.carrier == carrier.number:
                self._path_failed(peer)

    # Ways to a peer

    async def ways_to(self, peer: Peer) -> list[Endpoint]:
        """Ways that may work, the best first: through members; through volunteers that the peer is at home
        with, and through our own, which may be the same ones under another address."""
        if peer.node_key is None:
            return []
        new = [relay for relay in peer.relays[:MAX_PUBLISHED] if not self.client.registered(relay)]
        if new and not self._by_members(peer):
            asking = [asyncio.create_task(self.client.register(relay)) for relay in new]
            await asyncio.wait(asking, timeout=GUEST_DEADLINE_S)
        return self.ways_now(peer) or self.known_ways(peer)  # a way that has failed may be the only one

    def ways_now(self, peer: Peer) -> list[Endpoint]:
        """Of :meth:`ways_to`, those that can be used at once and have not failed lately."""
        return [way for way in self.known_ways(peer) if not self._has_failed(way)]

    def known_ways(self, peer: Peer) -> list[Endpoint]:
        """The same with those that have failed lately, which may work by now: a member that has not met the
        peer yet brings it nothing."""
        known = dict.fromkeys([*peer.relays[:MAX_PUBLISHED], *self.client.homes])
        ways = [self._way(peer, relay) for relay in known if self.client.registered(relay)]
        return [*self._by_members(peer), *ways]

    def _by_members(self, peer: Peer) -> list[Endpoint]:
        in_use = self._way_of(peer.endpoint)
        relays = None
        if isinstance(in_use, MemberWay):
            carrier = self._table.by_number(in_use.carrier)
            relays = None if carrier is None else (key_of(carrier), *in_use.through)
        ways = []
        for route in self.neighbourhood.route_to(peer, relays)[:MAX_ROUTES]:
            first = self.neighbourhood.member(route.relays[0])
            if first is not None and all(self.neighbourhood.member(key) for key in route.relays[1:]):
                ways.append(self._way(peer, MemberWay(first.number, route.relays[1:])))
        return ways

    def fall_back(self, peer: Peer) -> Endpoint | None:
        """Another way than the one in use, which has failed; None where there is none."""
        if peer.endpoint is not None:
            place = place_of(peer.endpoint)
            if place is not None:
                self._failed[place] = _now() + FAILED_S
        return next(iter(self.ways_now(peer)), None)

    def instead_of_guess(self, peer: Peer) -> Endpoint | None:
        """The way to take where the one in use was a guess that gossip denies: ``peer`` once spoke through a
        member that does not reach it itself. That it is heard does not tell that nothing gets there."""
        way = self._way_of(peer.endpoint)
        if not isinstance(way, MemberWay) or way.through:
            return None
        carrier = self._table.by_number(way.carrier)
        if carrier is None or not self.neighbourhood.denies(carrier, peer):
            return None
        return next((other for other in self.ways_now(peer) if other != peer.endpoint), None)

    def way_heard(self, peer: Peer, heard_at: Endpoint) -> Endpoint:
        """The way from here by which to answer what came of ``peer`` by ``heard_at``. Of members only the
        last one is known then: of the ways that begin with it the one in use, or the best. Where there is
        none, the way back is the one in use."""
        heard = self._way_of(heard_at)
        if not isinstance(heard, MemberWay):
            return heard_at
        if peer.endpoint is not None and self._first_of(peer.endpoint) == heard.carrier:
            return peer.endpoint
        for way in self._by_members(peer):
            if self._first_of(way) == heard.carrier:
                return way
        return peer.endpoint if peer.relayed and peer.endpoint is not None else heard_at

    def _first_of(self, endpoint: Endpoint) -> int | None:
        """The number of the first member on a way through members."""
        way = self._way_of(endpoint)
        return way.carrier if isinstance(way, MemberWay) else None

    def volunteer_of(self, endpoint: Endpoint | None) -> Endpoint | None:
        """The volunteer that the way ``endpoint`` leads through; None where it is none."""
        way = self._way_of(endpoint)
        return way if isinstance(way, Endpoint) else None

    def members_of(self, endpoint: Endpoint | None) -> list[Peer]:
        """The members that the way ``endpoint`` leads through, the nearest first."""
        way = self._way_of(endpoint)
        if not isinstance(way, MemberWay):
            return []
        found = [self._table.by_number(way.carrier), *map(self.neighbourhood.member, way.through)]
        return [peer for peer in found if peer is not None]

    def describe(self, endpoint: Endpoint | None) -> str:
        """The way ``endpoint`` in words."""
        members = self.members_of(endpoint)
        if members:
            return ", ".join(peer.name for peer in members)
        return f"the relay at {self.volunteer_of(endpoint)}"

    # Handshake messages

    def send_handshake(self, data: bytes, endpoint: Endpoint) -> None:
        """Send a handshake message on the way ``endpoint``."""
        place = place_of(endpoint)
        peer = None if place is None else self._table.by_number(place.peer)
        way = self._way_of(endpoint)
        if peer is None or way is None or not peer.relay_ids:
            self._drops.count("relay", "no_way")
            return
        self._follow_epoch()
        if isinstance(way, Endpoint):
            self._send(wrap_handshake(peer.relay_ids[0], self._own_ids[0], data), way)
            return
        carrier = self._table.by_number(way.carrier)
        if carrier is not None and self._tunnels is not None:
            header = frame_header(HANDSHAKE_MARK, (*self._ids_through(way), peer.relay_ids[0]))
            self._tunnels.send_relay_frame(carrier, header + self._own_ids[0] + data)

    def handshake_received(self, datagram_untrusted: bytes, source: Endpoint) -> None:
        """A handshake message from a volunteer. Never raises on its bytes."""
        try:
            identity, sender, message = unwrap_handshake(datagram_untrusted)
        except DecodeError as error:
            self._drops.count("relay", error.reason)
            return
        if not self.client.registered(source) or identity not in self._own_ids:
            self._drops.count("relay", "not_for_us")
            return
        peer = self._peer_of(sender)
        if peer is None:
            self._drops.count("relay", "stranger")
            self._stranger()
        elif self._tunnels is not None:
            self._tunnels.datagram_received(message, self._way(peer, source))

    def handshake_from_member(self, carrier: Peer, frame_untrusted: bytes) -> None:
        """A handshake message that a member has brought. Never raises on its bytes."""
        try:
            sender, message = arrived_handshake(frame_untrusted)
        except DecodeError as error:
            self._drops.count("relay", error.reason)
            return
        peer = self._peer_of(sender)
        if peer is None:
            self._drops.count("relay", "stranger")
            self._stranger()
        elif self._tunnels is not None:
            back = self._by_members(peer) or [self._way(peer, MemberWay(carrier.number))]
            self._tunnels.datagram_received(message, back[0])

    # Inside

    def _way_of(self, endpoint: Endpoint | None) -> Endpoint | MemberWay | None:
        place = None if endpoint is None else place_of(endpoint)
        return None if place is None else self._ways.get(place.via)

    def _way(self, peer: Peer, way: Endpoint | MemberWay) -> Endpoint:
        return relayed(self._number(way), peer.number)

    def _number(self, way: Endpoint | MemberWay) -> int:
        via = self._vias.get(way)
        if via is None:
            via = self._vias[way] = self._next_via
            self._ways[via] = way
            self._next_via += 1
            self._tell_via(via, way)
        return via

    def _tell_via(self, via: int, way: Endpoint | MemberWay) -> None:
        if self._tunnels is None:
            return
        if isinstance(way, Endpoint):
            self._tunnels.set_via(via, way, None)
        else:
            self._tunnels.set_via(via, None, way.carrier, self._ids_through(way))

    def _ids_through(self, way: MemberWay) -> tuple[bytes, ...]:
        members = map(self.neighbourhood.member, way.through)
        return tuple(member.relay_ids[0] for member in members if member is not None)

    def _moved_in(self) -> None:
        """Others hear of it now and send through volunteers that we may have sent nothing through."""
        for volunteer in self.client.homes:
            self._number(volunteer)
        self._homes_changed()

    def _has_failed(self, way: Endpoint) -> bool:
        place = place_of(way)
        return place is not None and self._failed.get(place, 0.0) > _now()

    def _not_here(self, volunteer: Endpoint, identity: bytes) -> None:
        """A volunteer does not know a peer: the way through it is none."""
        via, peer = self._vias.get(volunteer), self._peer_of(identity)
        if via is None or peer is None:
            return
        self._failed[Place(via, peer.number)] = _now() + FAILED_S
        if peer.endpoint == relayed(via, peer.number):
            self._path_failed(peer)

    def _volunteer_lost(self, volunteer: Endpoint) -> None:
        via = self._vias.pop(volunteer, None)
        if via is None:
            return
        del self._ways[via]
        if self._tunnels is not None:
            self._tunnels.remove_via(via)
        for peer in self._table.all():
            place = None if peer.endpoint is None else place_of(peer.endpoint)
            if place is not None and place.via == via:
                self._path_failed(peer)

    async def _follow_epochs(self) -> None:
        while True:
            self._follow_epoch()
            now = _now()
            self._failed = {place: until for place, until in self._failed.items() if until > now}
            self._forget_unused()
            await asyncio.sleep(EPOCH_CHECK_S)

    def _forget_unused(self) -> None:
        """Ways through several members that nobody is reached by, and those of members that are gone."""
        places = [place_of(peer.endpoint) for peer in self._table.all() if peer.endpoint is not None]
        used = {place.via for place in places if place is not None}
        for way, via in list(self._vias.items()):
            if not isinstance(way, MemberWay) or via in used:
                continue
            if way.through or self._table.by_number(way.carrier) is None:
                del self._vias[way], self._ways[via]
                if self._tunnels is not None:
                    self._tunnels.remove_via(via)

    def _follow_epoch(self) -> None:
        """Ours first of all the present epoch's, then those of the epochs in which others may be."""
        unix_time = self._unix_time()
        present = epoch_at(unix_time)
        epochs = list(dict.fromkeys([present, *lookup_epochs(unix_time)]))
        if epochs == self._epochs or self._tunnels is None:
            return
        self._epochs, self._peers_known = epochs, -1
        self._claims = tuple(relay_claim(self._secret, epoch, self._own_key) for epoch in epochs)
        self._own_ids = tuple(relay_id(claim) for claim in self._claims)
        self._tunnels.set_own_relay_ids(self._own_ids)
        for peer in self._table.all():
            if peer.node_key is not None:
                self._tunnels.set_relay_ids(peer, self._ids_of(peer.node_key))
        for way, via in self._vias.items():
            if isinstance(way, MemberWay) and way.through:
                self._tell_via(via, way)

    def _peer_of(self, identity: bytes) -> Peer | None:
        """Whom relays call ``identity`` in one of the epochs that are read."""
        self._follow_epoch()
        found = self._peers_by_id.get(identity)
        if found is not None and self._table.by_number(found.number) is found:
            return found
        if self._peers_known != self._table.changes:
            self._peers_known = self._table.changes
            self._peers_by_id = {
                self._id_of(peer.node_key, epoch): peer
                for peer in self._table.all()
                if peer.node_key is not None
                for epoch in self._epochs
            }
        return self._peers_by_id.get(identity)

    def _ids_of(self, node_key: bytes) -> tuple[bytes, ...]:
        return tuple(self._id_of(node_key, epoch) for epoch in self._epochs)

    def _id_of(self, node_key: bytes, epoch: int) -> bytes:
        return relay_id(relay_claim(self._secret, epoch, node_key))


def _now() -> float:
    return asyncio.get_running_loop().time()
