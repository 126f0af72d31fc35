"""Relays that drop or delay, seen from both ends: who leaves, who comes along. In virtual time."""

import asyncio
import itertools
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Occasion, Peer, PeerTable
from dhtvpn.mesh.relayed import relayed
from dhtvpn.node.relay_watch import BUSY_OCTETS, ROUND_S, RelayWatch

EAST, WEST, VOLUNTEER = relayed(1, 1), relayed(2, 1), relayed(3, 1)


class World:
    """One peer, whose packets flow. ``answers`` gives the round trip in ms of each ping on a way, or None."""

    def __init__(self, at: Endpoint = EAST, *ways: Endpoint) -> None:
        self.table = PeerTable()
        peer = self.table.add(
            tunnel_key=bytes(32),
            node_key=bytes(32),
            id="peer",
            name="peer",
            ipv4=None,
            ipv6=IPv6Address("fd00::1"),
        )
        assert peer is not None
        self.peer = peer
        peer.endpoint = at
        peer.move(Occasion.SESSION_UP)
        self.ways = list(ways) or [EAST, WEST]
        self.failed: list[Endpoint] = []
        """Ways that are not to be fallen back to for now."""
        self.answers: dict[Endpoint, Callable[[], float | None]] = {}
        self.pings: list[Endpoint] = []
        self.moves: list[tuple[str, Endpoint, float]] = []
        this: Any = self
        self.watch = RelayWatch(
            table=self.table,
            liveness=this,
            relaying=this,
            move=lambda peer, way: self._moved("better", way),
            follow=lambda peer, way: self._moved("followed", way),
        )

    def _moved(self, why: str, way: Endpoint) -> None:
        self.peer.endpoint = way
        self.moves.append((why, way, asyncio.get_running_loop().time()))

    async def try_path(self, peer: Peer, way: Endpoint) -> float | None:
        self.pings.append(way)
        answer = self.answers.get(way, lambda: 2.0)()
        await asyncio.sleep(1.0 if answer is None else answer / 1e3)
        return answer

    def ways_now(self, peer: Peer) -> list[Endpoint]:
        return self.ways

    def known_ways(self, peer: Peer) -> list[Endpoint]:
        return [*self.ways, *self.failed]

    def instead_of_guess(self, peer: Peer) -> None:
        return None

    def volunteer_of(self, way: Endpoint) -> Endpoint | None:
        return Endpoint("198.51.100.9", 4690) if way == VOLUNTEER else None

    def describe(self, way: Endpoint) -> str:
        return str(way)

    async def flow(self, seconds: float) -> None:
        """As much as one who only acknowledges sends."""
        for _ in range(int(seconds)):
            self.peer.tx_bytes += BUSY_OCTETS // 2
            await asyncio.sleep(1)


def dropping(every: int) -> Callable[[], float | None]:
    """Each so-manieth ping is lost, the first after a while."""
    count = itertools.count(1)
    return lambda: None if next(count) % every == 0 else 2.0


def play(world: World, story: Callable[[], Any]) -> None:
    async def go() -> None:
        running = asyncio.create_task(world.watch.run())
        began = asyncio.get_running_loop().time()
        await story()
        world.moves = [(why, way, when - began) for why, way, when in world.moves]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await world.watch.close()

    run(go())


def test_a_lost_ping_is_followed_by_a_closer_look_and_the_relay_is_left_at_once() -> None:
    world = World()
    world.answers[EAST] = dropping(5)
    play(world, lambda: world.flow(7 * ROUND_S))
    ((why, way, when),) = world.moves
    assert (why, way) == ("better", WEST)
    assert when < 6 * ROUND_S + 3, "the round in which the first ping was lost: the fifth that measured"


def test_where_every_way_loses_the_same_nobody_moves() -> None:
    world = World()
    shared = itertools.count()
    world.answers = dict.fromkeys((EAST, WEST), lambda: None if next(shared) // 2 % 5 == 0 else 2.0)
    play(world, lambda: world.flow(60))
    assert world.moves == []


def test_who_is_told_that_the_peer_left_a_relay_comes_along() -> None:
    world = World()

    async def story() -> None:
        world.watch.peer_left(world.peer, WEST)
        world.watch.peer_left(world.peer, WEST)
        await asyncio.sleep(1)

    play(world, story)
    ((why, way, when),) = world.moves
    assert (why, way) == ("followed", WEST) and when < 0.6
    assert len(world.pings) == 8, "compared once"


def test_a_relay_that_does_not_work_from_here_or_is_much_slower_is_not_followed_to() -> None:
    for answer in (None, 300.0):
        world = World()
        world.answers[WEST] = lambda answer=answer: answer  # type: ignore[misc]

        async def story(world: World = world) -> None:
            world.watch.peer_left(world.peer, WEST)
            await asyncio.sleep(4)

        play(world, story)
        assert world.moves == []


def test_one_lost_ping_on_a_better_way_keeps_nobody_from_it() -> None:
    """Once it kept us on the volunteer for twenty seconds."""
    world = World(VOLUNTEER, EAST, VOLUNTEER)
    lost = iter([None])
    world.answers[EAST] = lambda: next(lost, 2.0)
    play(world, lambda: world.flow(4 * ROUND_S))
    assert [(why, way) for why, way, _ in world.moves] == [("better", EAST)]


def test_a_better_way_that_failed_at_first_is_taken_as_soon_as_it_works() -> None:
    """Not only when its failure is forgotten, half a minute later."""
    world = World(VOLUNTEER, VOLUNTEER)
    world.failed = [EAST]
    dead = iter([None] * 2)
    world.answers[EAST] = lambda: next(dead, 2.0)
    play(world, lambda: world.flow(8 * ROUND_S))
    assert [(why, way) for why, way, _ in world.moves] == [("better", EAST)]


def test_a_way_that_is_dead_is_not_looked_at_closer_in_every_round() -> None:
    world = World()
    world.answers[WEST] = lambda: None
    play(world, lambda: world.flow(10 * ROUND_S))
    assert world.moves == [] and world.pings.count(WEST) <= 10


def test_following_forgets_what_was_measured_before() -> None:
    world = World(VOLUNTEER, EAST, VOLUNTEER)
    slow = iter([300.0] * 3)
    world.answers[EAST] = lambda: next(slow, 2.0)

    async def story() -> None:
        await world.flow(5 * ROUND_S)
        assert world.moves == []
        world.watch.peer_left(world.peer, EAST)
        await world.flow(20)

    play(world, story)
    assert [(why, way) for why, way, _ in world.moves] == [("followed", EAST)]


def test_a_direct_path_is_not_left_because_the_peer_speaks_by_a_relay() -> None:
    world = World(Endpoint("192.0.2.7", 4690))

    async def story() -> None:
        world.watch.peer_left(world.peer, WEST)
        await asyncio.sleep(2)

    play(world, story)
    assert world.moves == [] and world.pings == []


def test_an_idle_peer_costs_nothing() -> None:
    world = World()
    play(world, lambda: asyncio.sleep(100))
    assert world.pings == []
