"""Gossip among nodes in virtual time: who learns what, what it costs, and which ways come of it."""

import asyncio
import random
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from virtual_time import run

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Occasion, Peer, PeerTable
from dhtvpn.mesh.relayed import relayed
from dhtvpn.mesh.routes import Links
from dhtvpn.node.neighbourhood import Neighbourhood, key_of

RTT_MS = 20.0


def key(number: int) -> bytes:
    return bytes([number + 1]) * 32


class Nodes:
    """``links`` are pairs that reach each other directly; all know all."""

    def __init__(self, count: int, *links: tuple[int, int], unwilling: tuple[int, ...] = ()) -> None:
        self.tables = [PeerTable() for _ in range(count)]
        self.peers: dict[tuple[int, int], Peer] = {}
        self.sent = 0
        self.octets = 0
        self.drops = Drops()
        for own in range(count):
            for other in range(count):
                if own != other:
                    self._know(own, other)
        self.hoods = [
            Neighbourhood(
                own_key=key(number),
                table=self.tables[number],
                send_frame=self._sender(number),
                willing=number not in unwilling,
                drops=self.drops,
                unix_time=lambda: 1.0,
            )
            for number in range(count)
        ]
        self.unwilling = unwilling
        self.links: set[tuple[int, int]] = set()
        for one, other in links:
            self.connect(one, other)

    def _know(self, own: int, other: int) -> None:
        peer = self.tables[own].add(
            tunnel_key=key(other),
            node_key=key(other),
            id=f"n{other}",
            name=f"n{other}",
            ipv4=None,
            ipv6=IPv6Address(other + 1),
        )
        assert peer is not None
        self.peers[own, other] = peer

    def _sender(self, own: int) -> Callable[[Peer, frames.Frame], None]:
        def send(peer: Peer, frame: frames.Frame) -> None:
            other = next(o for (n, o), known in self.peers.items() if n == own and known is peer)
            assert (own, other) in self.links, "gossip goes to neighbours"
            self.sent += 1
            self.octets += len(frames.encode(frame))
            decoded = frames.decode(frames.encode(frame))
            assert isinstance(decoded, frames.Neighbours)
            loop = asyncio.get_running_loop()
            loop.call_later(0.01, self.hoods[other].heard, self.peers[other, own], decoded.links)

        return send

    def connect(self, one: int, other: int) -> None:
        for own, far in ((one, other), (other, one)):
            peer = self.peers[own, far]
            peer.endpoint, peer.rtt_ms = Endpoint("192.0.2.1", far + 1), RTT_MS
            peer.relays_for_members = far not in self.unwilling
            peer.move(Occasion.SESSION_UP)
            self.links.add((own, far))

    def cut(self, one: int, other: int) -> None:
        for own, far in ((one, other), (other, one)):
            self.peers[own, far].move(Occasion.PATH_LOST)
            self.links.discard((own, far))
            self.hoods[own].gone(self.peers[own, far])

    def ways(self, own: int, other: int) -> list[list[int]]:
        routes = self.hoods[own].route_to(self.peers[own, other])
        return [[relay[0] - 1 for relay in route.relays] for route in routes]


def play(nodes: Nodes, story: Callable[[], Any]) -> None:
    async def go() -> None:
        for own, far in sorted(nodes.links):
            nodes.hoods[own].introduce(nodes.peers[own, far])
        running = [asyncio.create_task(hood.run()) for hood in nodes.hoods]
        await asyncio.sleep(6)
        await story()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    run(go())


def test_a_row_is_known_up_to_three_relays() -> None:
    nodes = Nodes(7, *((n, n + 1) for n in range(6)))

    async def story() -> None:
        assert nodes.ways(0, 2) == [[1]]
        assert nodes.ways(0, 3) == [[1, 2]]
        assert nodes.ways(0, 4) == [[1, 2, 3]]
        assert nodes.ways(0, 5) == nodes.ways(0, 6) == []
        assert nodes.ways(6, 2) == [[5, 4, 3]]

    play(nodes, story)
    assert nodes.drops.total() == 0


def test_a_way_that_is_cut_is_replaced_and_comes_back() -> None:
    nodes = Nodes(4, (0, 1), (1, 3), (0, 2), (2, 3))

    async def story() -> None:
        assert sorted(nodes.ways(0, 3)) == [[1], [2]]
        nodes.cut(1, 3)
        await asyncio.sleep(4)
        assert nodes.ways(0, 3) == [[2]]
        nodes.cut(0, 2)
        await asyncio.sleep(4)
        assert nodes.ways(0, 3) == []
        nodes.connect(1, 3)
        await asyncio.sleep(4)
        assert nodes.ways(0, 3) == [[1]]

    play(nodes, story)


def test_what_a_neighbour_has_told_holds_again_though_it_never_noticed_that_we_were_gone() -> None:
    nodes = Nodes(3, (0, 1), (1, 2))

    async def story() -> None:
        assert nodes.ways(0, 2) == [[1]]
        neighbour = nodes.peers[0, 1]
        direct, neighbour.endpoint = neighbour.endpoint, relayed(1, neighbour.number)
        nodes.hoods[0].gone(neighbour)
        await asyncio.sleep(5)
        assert nodes.ways(0, 2) == []
        neighbour.endpoint = direct
        nodes.hoods[0].introduce(neighbour)
        assert nodes.ways(0, 2) == [[1]]

    play(nodes, story)


def test_who_does_not_relay_is_on_no_way() -> None:
    nodes = Nodes(3, (0, 1), (1, 2), unwilling=(1,))

    async def story() -> None:
        assert nodes.ways(0, 2) == []

    play(nodes, story)


def test_the_faster_way_is_first_and_small_changes_tell_nobody() -> None:
    nodes = Nodes(4, (0, 1), (1, 3), (0, 2), (2, 3))

    async def story() -> None:
        nodes.peers[1, 3].rtt_ms = 90.0
        await asyncio.sleep(4)
        assert nodes.ways(0, 3) == [[2], [1]]
        before = nodes.sent
        for step in range(100):
            nodes.peers[1, 3].rtt_ms = 90.0 + step % 5
            await asyncio.sleep(1)
        assert nodes.sent == before

    play(nodes, story)


def test_a_full_mesh_at_rest_costs_next_to_nothing() -> None:
    count = 8
    nodes = Nodes(count, *((a, b) for a in range(count) for b in range(a)))

    async def story() -> None:
        nodes.sent = nodes.octets = 0
        await asyncio.sleep(3600)
        assert nodes.sent <= 13 * count * (count - 1), "nothing is passed on"
        assert nodes.octets / 3600 / (count * (count - 1)) < 1.0

    play(nodes, story)


def test_what_a_member_says_in_another_ones_name_is_dropped() -> None:
    nodes = Nodes(3, (0, 1), (1, 2))

    async def story() -> None:
        liar = nodes.peers[0, 1]
        nodes.hoods[0].heard(liar, Links(key(2)[:8], 1 << 31, {}, 0))
        nodes.hoods[0].heard(liar, Links(key(1)[:8], 1 << 31, {}, 1))
        nodes.hoods[0].heard(liar, Links(key(0)[:8], 1 << 31, {}, 1))
        assert nodes.drops.as_dict() == {"frame.frame_origin": 2}
        assert nodes.ways(0, 2) == [[1]]

    play(nodes, story)


def test_a_relayed_peer_is_no_neighbour() -> None:
    nodes = Nodes(3, (0, 1), (1, 2))

    async def story() -> None:
        nodes.links |= {(0, 2), (2, 0)}
        for own, far in ((0, 2), (2, 0)):
            nodes.peers[own, far].endpoint = relayed(1, nodes.peers[own, far].number)
            nodes.peers[own, far].move(Occasion.SESSION_UP)
        await asyncio.sleep(5)
        assert nodes.ways(0, 2) == [[1]]
        assert nodes.hoods[0].member(key_of(nodes.peers[0, 2])) is nodes.peers[0, 2]

    play(nodes, story)


def test_a_mesh_whose_delays_vary_costs_little_too() -> None:
    """On a busy machine each measurement is another one."""
    count, seconds = 16, 600
    links = [(one, other) for one in range(count) for other in range(one)]
    nodes = Nodes(count, *links)
    chance = random.Random(1)

    async def story() -> None:
        before = nodes.octets
        for _ in range(seconds):
            for own, far in chance.sample(sorted(nodes.links), 20):
                nodes.peers[own, far].rtt_ms = chance.uniform(1, 200)
            await asyncio.sleep(1)
        assert 1 < (nodes.octets - before) / seconds / len(nodes.links) <= 8

    play(nodes, story)


def test_many_who_come_one_after_the_other_do_not_make_a_flood() -> None:
    """One a second, and each reaches all the others."""
    count = 24
    nodes = Nodes(count, (0, 1))

    async def story() -> None:
        nodes.sent = 0
        for own in range(2, count):
            for far in range(own):
                nodes.connect(own, far)
                for one, other in ((own, far), (far, own)):
                    nodes.hoods[one].introduce(nodes.peers[one, other])
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        pairs = count * (count - 1)
        assert nodes.sent <= 8 * pairs
        assert all(len(hood.told()) == count - 1 for hood in nodes.hoods)
        assert all(len(links.round_trips_ms) == count - 1 for links in nodes.hoods[0].told())

    play(nodes, story)


def test_in_a_large_network_a_row_beside_the_crowd_is_known_later() -> None:
    """Twelve that reach each other, and two more in a row: the last hears of all, and all of it."""
    crowd = [(one, other) for one in range(12) for other in range(one)]
    nodes = Nodes(14, *crowd, (0, 12), (12, 13))

    async def story() -> None:
        await asyncio.sleep(20)
        assert nodes.ways(13, 12) == [] and nodes.ways(13, 0) == [[12]]
        assert nodes.ways(13, 5) == [[12, 0]]
        assert nodes.ways(5, 13)[0] == [0, 12]

    play(nodes, story)
