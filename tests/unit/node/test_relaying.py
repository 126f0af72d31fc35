"""Ways through relays and what goes on them beside data, between three members with fakes for tunnels."""

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from virtual_time import run

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.membership.relay_claims import relay_claim
from dhtvpn.mesh.peers import Occasion, Peer, PeerTable
from dhtvpn.mesh.relay_wire import relay_id
from dhtvpn.mesh.relayed import is_relayed, place_of
from dhtvpn.mesh.routes import Links
from dhtvpn.node.neighbourhood import Neighbourhood, key_of
from dhtvpn.node.relaying import MemberWay, Relaying
from dhtvpn.records.epochs import EPOCH_S

SECRET = bytes(32)
NOON = 100 * EPOCH_S + EPOCH_S / 2
VOLUNTEER = Endpoint("198.51.100.9", 4690)
INITIATION = b"\x01\0\0\0" + bytes(range(144))


def key(number: int) -> bytes:
    return bytes([number + 1]) * 32


class Node:
    """One member: ``told`` is what its engine was told, ``got`` what handshake messages came."""

    def __init__(self, number: int, count: int = 3) -> None:
        self.number = number
        self.unix_time = NOON
        self.table = PeerTable()
        self.told: list[tuple[Any, ...]] = []
        self.got: list[tuple[bytes, Endpoint]] = []
        self.sent: list[tuple[bytes, Endpoint]] = []
        self.failed: list[Peer] = []
        self.strangers = self.moved = 0
        self.drops = Drops()
        self.hood = Neighbourhood(
            own_key=key(number),
            table=self.table,
            send_frame=lambda peer, frame: None,
            willing=True,
            drops=self.drops,
        )
        self.relaying = Relaying(
            secret=SECRET,
            own_key=key(number),
            table=self.table,
            send=lambda data, endpoint: self.sent.append((data, endpoint)),
            homes_changed=self._moved,
            path_failed=self.failed.append,
            stranger=self._stranger,
            drops=self.drops,
            neighbourhood=self.hood,
            unix_time=lambda: self.unix_time,
        )
        self.relaying.client.registered = lambda endpoint: endpoint == VOLUNTEER  # type: ignore[method-assign]
        self.relaying.use(self)  # type: ignore[arg-type]
        self.peers = {other: self._know(other) for other in range(count) if other != number}

    def _stranger(self) -> None:
        self.strangers += 1

    def _moved(self) -> None:
        self.moved += 1

    def _know(self, other: int) -> Peer:
        peer = self.table.add(
            tunnel_key=key(other),
            node_key=key(other),
            id=f"n{other}",
            name=f"n{other}",
            ipv4=None,
            ipv6=IPv6Address(other + 1),
        )
        assert peer is not None
        self.relaying.peer_added(peer)
        return peer

    def datagram_received(self, data: bytes, source: Endpoint) -> None:
        self.got.append((data, source))

    def set_relay_ids(self, peer: Peer, relay_ids: tuple[bytes, ...]) -> None:
        peer.relay_ids = relay_ids

    def __getattr__(self, name: str) -> Any:
        return lambda *values: self.told.append((name, *values))

    def reach(self, other: int, links: dict[int, float]) -> None:
        """A direct path to ``other``, which relays and says that it reaches ``links``."""
        peer = self.peers[other]
        peer.endpoint, peer.rtt_ms, peer.relays_for_members = Endpoint("192.0.2.1", 9), 10.0, True
        peer.move(Occasion.SESSION_UP)
        self.relaying.may_carry(peer)
        reached = {key(number)[:8]: rtt_ms for number, rtt_ms in links.items()}
        self.hood.heard(peer, Links(key_of(peer), 1, reached))


def play(story: Callable[[], Any]) -> None:
    async def go() -> None:
        await story()

    run(go())


def test_a_handshake_goes_there_and_back_through_a_volunteer() -> None:
    async def story() -> None:
        a, b = Node(0), Node(1)
        a.peers[1].relays = (VOLUNTEER,)
        (way,) = await a.relaying.ways_to(a.peers[1])
        assert is_relayed(way) and a.relaying.volunteer_of(way) == VOLUNTEER
        assert ("set_via", place_of(way).via, VOLUNTEER, None) in a.told  # type: ignore[union-attr]
        a.relaying.send_handshake(INITIATION, way)
        ((datagram, endpoint),) = a.sent
        assert endpoint == VOLUNTEER
        b.relaying.handshake_received(datagram, VOLUNTEER)
        ((message, back),) = b.got
        assert message == INITIATION
        b.relaying.send_handshake(b"\x02\0\0\0" + bytes(88), back)
        a.relaying.handshake_received(b.sent[0][0], VOLUNTEER)
        assert a.got[0][1] == way
        assert a.drops.total() == b.drops.total() == 0

    play(story)


def test_what_a_member_brought_is_answered_by_the_way_that_begins_with_it() -> None:
    async def story() -> None:
        a = Node(0, 5)
        for carrier in (1, 2, 4):
            a.reach(carrier, {3: 10.0 * carrier} if carrier != 4 else {})
        peer = a.peers[3]
        first, second = await a.relaying.ways_to(peer)
        peer.endpoint = first
        peer.move(Occasion.SESSION_UP)
        assert a.relaying.way_heard(peer, second) == second
        assert a.relaying.way_heard(peer, first) == first
        unknown = a.relaying._way(peer, MemberWay(a.peers[4].number))
        assert a.relaying.way_heard(peer, unknown) == first, "it is not said to reach the peer"
        direct = Endpoint("192.0.2.9", 4690)
        assert a.relaying.way_heard(peer, direct) == direct

    play(story)


def test_of_several_members_on_a_way_the_last_stands_for_all() -> None:
    async def story() -> None:
        a = Node(0, 4)
        a.reach(1, {2: 10.0})
        a.hood.heard(a.peers[1], Links(key(2)[:8], 1, {key(3)[:8]: 10.0}, 1))
        peer = a.peers[3]
        (way,) = await a.relaying.ways_to(peer)
        assert len(a.relaying.members_of(way)) == 2
        brought = a.relaying._way(peer, MemberWay(a.peers[1].number))
        for peer.endpoint in (way, None):
            assert a.relaying.way_heard(peer, brought) == way

    play(story)


def test_the_engine_knows_the_volunteers_that_others_may_send_through() -> None:
    async def story() -> None:
        a = Node(0)
        a.relaying.client._move_in(VOLUNTEER)
        assert [word[2] for word in a.told if word[0] == "set_via"] == [VOLUNTEER] and a.moved == 1

    play(story)


def test_handshakes_from_elsewhere_or_for_others_are_dropped() -> None:
    async def story() -> None:
        a, b, c = Node(0), Node(1), Node(2)
        a.peers[1].relays = (VOLUNTEER,)
        (way,) = await a.relaying.ways_to(a.peers[1])
        a.relaying.send_handshake(INITIATION, way)
        datagram = a.sent[0][0]
        b.relaying.handshake_received(datagram, Endpoint("203.0.113.1", 4690))
        c.relaying.handshake_received(datagram, VOLUNTEER)
        b.relaying.handshake_received(datagram[:16], VOLUNTEER)
        b.relaying.handshake_received(datagram[:9] + b"unknown" + datagram[16:], VOLUNTEER)
        assert not b.got and not c.got and b.strangers == 1
        assert b.drops.as_dict() == {"relay.not_for_us": 1, "relay.relay_length": 1, "relay.stranger": 1}

    play(story)


def test_clocks_ten_minutes_apart_around_the_hour() -> None:
    async def story() -> None:
        a, b = Node(0), Node(1)
        for offset in (-600, 600):
            b.unix_time = 101 * EPOCH_S - offset / 2
            a.unix_time = b.unix_time + offset
            for node in (a, b):
                node.relaying.claims()
            a.peers[1].relays = (VOLUNTEER,)
            (way,) = await a.relaying.ways_to(a.peers[1])
            a.relaying.send_handshake(INITIATION, way)
            b.relaying.handshake_received(a.sent[-1][0], VOLUNTEER)
            assert b.got.pop()[0] == INITIATION

    play(story)


def test_members_come_before_volunteers_and_a_handshake_goes_through_them() -> None:
    async def story() -> None:
        a, c = Node(0), Node(2)
        a.peers[2].relays = (VOLUNTEER,)
        a.reach(1, {2: 10.0})
        c.reach(1, {0: 10.0})
        by_member, by_volunteer = await a.relaying.ways_to(a.peers[2])
        assert a.relaying.members_of(by_member) == [a.peers[1]]
        assert a.relaying.volunteer_of(by_volunteer) == VOLUNTEER
        a.relaying.send_handshake(INITIATION, by_member)
        name, carrier, frame = a.told[-1]
        assert (name, carrier) == ("send_relay_frame", a.peers[1])
        arrived = bytes((frame[0] - 1,)) + frame[8:]  # as the member in the middle sends it on
        c.relaying.handshake_from_member(c.peers[1], arrived.ljust(200, b"\0"))
        ((message, back),) = c.got
        assert message == INITIATION and c.relaying.members_of(back) == [c.peers[1]]
        c.relaying.handshake_from_member(c.peers[1], arrived[:20])
        assert c.drops.as_dict() == {"relay.relay_length": 1}

    play(story)


def test_a_guess_that_gossip_denies_is_left_for_a_way_that_it_knows() -> None:
    """A handshake message has come before the links of the members that brought it."""

    async def story() -> None:
        a, d = Node(0, 4), Node(3, 4)
        a.reach(1, {2: 10.0})
        a.hood.heard(a.peers[1], Links(key(2)[:8], 1, {key(1)[:8]: 10.0, key(3)[:8]: 10.0}, 1))
        (way,) = await a.relaying.ways_to(a.peers[3])
        a.relaying.send_handshake(INITIATION, way)
        frame = a.told[-1][2]
        d.reach(2, {})
        d.hood.gone(d.peers[2])  # it has told nothing yet
        d.relaying.handshake_from_member(d.peers[2], (bytes((frame[0] - 2,)) + frame[15:]).ljust(200, b"\0"))
        ((_, guess),) = d.got
        peer = d.peers[0]
        peer.endpoint = guess
        assert d.relaying.members_of(guess) == [d.peers[2]]
        assert d.relaying.instead_of_guess(peer) is None
        d.reach(2, {1: 10.0, 3: 10.0})
        d.hood.heard(d.peers[2], Links(key(1)[:8], 1, {key(0)[:8]: 10.0, key(2)[:8]: 10.0}, 1))
        better = d.relaying.instead_of_guess(peer)
        assert better is not None and d.relaying.members_of(better) == [d.peers[2], d.peers[1]]
        peer.endpoint = better
        assert d.relaying.instead_of_guess(peer) is None

    play(story)


def test_ways_that_nobody_is_reached_by_are_forgotten() -> None:
    async def story() -> None:
        a = Node(0, 4)
        a.reach(1, {2: 10.0})
        a.hood.heard(a.peers[1], Links(key(2)[:8], 1, {key(3)[:8]: 10.0}, 1))
        (way,) = await a.relaying.ways_to(a.peers[3])
        assert a.relaying.members_of(way) == [a.peers[1], a.peers[2]]
        place = place_of(way)
        assert place is not None
        assert ("set_via", place.via, None, a.peers[1].number, (a.peers[2].relay_ids[0],)) in a.told
        a.peers[3].endpoint = way
        a.relaying._forget_unused()
        assert a.relaying.members_of(way)
        a.peers[3].endpoint = None
        a.table.remove(a.peers[1])
        a.relaying._forget_unused()
        assert not a.relaying._vias and not a.relaying._ways

    play(story)


def test_a_way_that_failed_is_left_out_for_a_while() -> None:
    async def story() -> None:
        a = Node(0)
        peer = a.peers[2]
        peer.relays = (VOLUNTEER,)
        a.reach(1, {2: 10.0})
        first, second = await a.relaying.ways_to(peer)
        peer.endpoint = first
        assert a.relaying.fall_back(peer) == second
        peer.endpoint = second
        assert a.relaying.fall_back(peer) is None

    play(story)


def test_a_volunteer_or_a_member_that_is_gone_fails_who_is_reached_through_it() -> None:
    async def story() -> None:
        a = Node(0)
        peer = a.peers[2]
        peer.relays = (VOLUNTEER,)
        a.reach(1, {2: 10.0})
        by_member, by_volunteer = await a.relaying.ways_to(peer)
        peer.endpoint = by_member
        a.relaying.carrier_lost(a.peers[1])
        assert a.failed == [peer]
        peer.endpoint = by_volunteer
        a.relaying._not_here(VOLUNTEER, relay_id(relay_claim(SECRET, 100, key(1))))
        assert a.failed == [peer], "that was about somebody else"
        a.relaying._not_here(VOLUNTEER, peer.relay_ids[0])
        a.relaying._volunteer_lost(VOLUNTEER)
        assert a.failed == [peer] * 3 and a.relaying.volunteer_of(by_volunteer) is None

    play(story)
