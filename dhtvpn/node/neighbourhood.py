"""Gossip: tells members whom this node reaches directly, hears the same of them, and finds ways through them.

Links go to every member with a direct path, when they have changed and now and then. What a member says is
passed on to those that it does not reach itself: in a full mesh that is nobody, so gossip costs little there.

While many members come, everything that one says is soon out of date. So the larger the network, the longer
both wait, until there is more to say at once, or nothing: the newcomer has reached the origin by then.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from dhtvpn.drops import Drops
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.mesh.routes import FLOOD_HOPS, MAX_LINKS, Links, LinkStates, Route, choose, routes_to

CHECK_S: Final = 1.0
REFRESH_S: Final = 300.0
"""Between two tellings where nothing has changed."""
LEAST_GAP_S: Final = 2.0
"""Between two tellings in any case."""
GAP_PER_LINK_S: Final = 2.0
"""Between two tellings in which only round trips are others, for each link: a link is 10 octets of a frame
that goes to every neighbour, so gossip of paths whose delay varies stays at some 5 octets a second and
neighbour."""
FEW: Final = 8
"""In a network of so many members everything is told and passed on at once."""
GAP_PER_NEIGHBOUR_S: Final = 0.25
"""Between two tellings in which neighbours have come or gone, for each of them: 16 s among 64. Ours."""
WAIT_PER_ORIGIN_S: Final = 0.25
LONGEST_WAIT_S: Final = 30.0
"""How long what was heard waits until it is passed on: for each member that says something, and at most."""
MAX_DUE: Final = 256
"""Members whose links wait to be passed on to one peer; of others it hears when they say something again."""
CHANGED_SHARE, CHANGED_MS = 0.3, 5.0
"""A round trip is another one than was told when it differs by so much."""
UNKNOWN_MS: Final = 50.0
"""Taken for a round trip that has not been measured yet."""


class Neighbourhood:
    """``willing``: whether this node relays; without, it listens and tells nothing."""

    def __init__(
        self,
        *,
        own_key: bytes,
        table: PeerTable,
        send_frame: Callable[[Peer, frames.Frame], None],
        willing: bool,
        drops: Drops,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._own = own_key[: frames.KEY_SIZE]
        self._table, self._send_frame, self._willing, self._drops = table, send_frame, willing, drops
        self._states = LinkStates()
        self._sequence = int(unix_time())
        self._told: dict[bytes, float] = {}
        self._told_at = 0.0
        self._introduced: set[int] = set()
        self._due: dict[int, dict[bytes, float]] = {}
        """Peer number -> whose links are to be passed on to it, and when."""
        self._members: dict[bytes, Peer] = {}
        self._members_of = -1
        """The state of the table that ``_members`` is of."""
        self._aside: dict[int, Links] = {}
        """What neighbours have said of themselves to which there is no direct path just now."""

    async def run(self) -> None:
        """Tell what has changed, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            now = asyncio.get_running_loop().time()
            self._states.expire(now)
            self._pass_on_what_is_due(now)
            self._aside = {n: links for n, links in self._aside.items() if self._table.by_number(n)}
            if self._willing and now - self._told_at >= LEAST_GAP_S and self._news(now):
                self._tell(now)

    def introduce(self, peer: Peer) -> None:
        """A direct path to ``peer`` is up: tell it what we know, once. What it has told holds again: it may
        not have noticed that we were gone, and would not repeat it for minutes."""
        links = self._aside.pop(peer.number, None)
        if links is not None:
            self._states.offer(links, asyncio.get_running_loop().time())
        if self._willing and peer.node_key is not None and peer.number not in self._introduced:
            self._introduced.add(peer.number)
            self._send_frame(peer, frames.Neighbours(Links(self._own, self._sequence, dict(self._told))))
            for known in self._states.all():
                self._pass_on(known, (peer,))

    def heard(self, peer: Peer, links: Links) -> None:
        """``peer`` tells its own links, or passes on those of another member."""
        if peer.node_key is None or links.origin == self._own:
            return
        if (links.hops == 0) != (links.origin == key_of(peer)):
            self._drops.count("frame", "frame_origin")
            return
        if self._states.offer(links, asyncio.get_running_loop().time()) and self._willing:
            others = [other for other in self._neighbours() if other is not peer]
            self._pass_on(links, others)

    def gone(self, peer: Peer) -> None:
        """There is no direct path to ``peer`` any more: it says nothing to us itself."""
        self._introduced.discard(peer.number)
        self._due.pop(peer.number, None)
        if peer.node_key is not None:
            links = self._states.of(key_of(peer))
            if links is not None and links.hops == 0:
                self._states.forget(links.origin)
                self._aside[peer.number] = links

    def route_to(self, peer: Peer, in_use: tuple[bytes, ...] | None = None) -> list[Route]:
        """Ways to ``peer`` through members, the one to take first."""
        if peer.node_key is None:
            return []
        neighbours = {
            key_of(other): _round_trip_ms(other) for other in self._neighbours() if other.relays_for_members
        }
        routes = routes_to(key_of(peer), self._own, neighbours, self._states)
        first = choose(routes, in_use)
        return [] if first is None else [first, *(route for route in routes if route is not first)]

    def member(self, key: bytes) -> Peer | None:
        """The peer whose shortened node key is ``key``."""
        if self._members_of != self._table.changes:
            self._members = {key_of(peer): peer for peer in self._table.all() if peer.node_key}
            self._members_of = self._table.changes
        return self._members.get(key)

    def denies(self, member: Peer, peer: Peer) -> bool:
        """Whether ``member`` has told its links, and ``peer`` is not among them."""
        links = self._states.of(key_of(member))
        return links is not None and key_of(peer) not in links.round_trips_ms

    def own_links(self) -> tuple[bytes, Links]:
        """What gossip calls this node, and whom it reaches directly now."""
        return self._own, Links(self._own, self._sequence, self._links())

    def told(self) -> list[Links]:
        """What other members have said."""
        return self._states.all()

    def _neighbours(self) -> list[Peer]:
        return [peer for peer in self._table.connected() if peer.node_key and not peer.relayed]

    def _links(self) -> dict[bytes, float]:
        found = {key_of(peer): _round_trip_ms(peer) for peer in self._neighbours()}
        return dict(sorted(found.items(), key=lambda item: item[1])[:MAX_LINKS])

    def _news(self, now: float) -> bool:
        links = self._links()
        if now - self._told_at >= REFRESH_S:
            return bool(links or self._told)
        if links.keys() != self._told.keys():
            return now - self._told_at >= GAP_PER_NEIGHBOUR_S * len(links)
        if now - self._told_at < GAP_PER_LINK_S * len(links):
            return False
        return any(
            abs(rtt - self._told[key]) > max(CHANGED_MS, CHANGED_SHARE * self._told[key])
            for key, rtt in links.items()
        )

    def _tell(self, now: float) -> None:
        self._told, self._told_at = self._links(), now
        self._sequence += 1
        for peer in self._neighbours():
            self._send_frame(peer, frames.Neighbours(Links(self._own, self._sequence, self._told)))

    def _pass_on(self, links: Links, peers: list[Peer] | tuple[Peer, ...]) -> None:
        """To those whom the origin does not reach itself: at once where there are few members, else later."""
        if links.hops >= FLOOD_HOPS:
            return
        origins = len(self._states)
        due = asyncio.get_running_loop().time() + min(LONGEST_WAIT_S, WAIT_PER_ORIGIN_S * origins)
        for peer in peers:
            if not self._lacks(peer, links):
                continue
            if origins <= FEW:
                self._send_further(links, peer)
                continue
            waiting = self._due.setdefault(peer.number, {})
            if len(waiting) < MAX_DUE:
                waiting.setdefault(links.origin, due)

    def _pass_on_what_is_due(self, now: float) -> None:
        """The newest of what waits, to whom it is still news."""
        for number, origins in list(self._due.items()):
            peer = self._table.by_number(number)
            for origin in [origin for origin, due in origins.items() if due <= now]:
                del origins[origin]
                links = self._states.of(origin)
                if peer is None or links is None or links.hops >= FLOOD_HOPS:
                    continue
                if self._lacks(peer, links):
                    self._send_further(links, peer)
            if not origins:
                del self._due[number]

    def _lacks(self, peer: Peer, links: Links) -> bool:
        """Whether ``peer`` does not hear ``links`` of their origin itself, as far as either has said."""
        key = key_of(peer)
        if key == links.origin or key in links.round_trips_ms:
            return False
        own = self._states.of(key)
        return own is None or links.origin not in own.round_trips_ms

    def _send_further(self, links: Links, peer: Peer) -> None:
        further = Links(links.origin, links.sequence, links.round_trips_ms, links.hops + 1)
        self._send_frame(peer, frames.Neighbours(further))


def key_of(peer: Peer) -> bytes:
    """What gossip calls a member."""
    return (peer.node_key or b"")[: frames.KEY_SIZE]


def _round_trip_ms(peer: Peer) -> float:
    return UNKNOWN_MS if peer.rtt_ms is None else peer.rtt_ms
