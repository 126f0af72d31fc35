"""From one path to another, on fakes and in virtual time: two nodes' worth of liveness and moves."""

import asyncio
import itertools
import time
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Occasion, Peer
from dhtvpn.mesh.relayed import relayed
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.path_changes import SILENCE_S, PathChanges

DIRECT = Endpoint("192.0.2.7", 4690)
RELAY, OTHER = relayed(1, 1), relayed(2, 1)
RTT_S = 0.02


class World:
    """One peer; ``works`` are the paths by which a ping is answered. The peer's packets flow all the time."""

    def __init__(self, *works: Endpoint, at: Endpoint = DIRECT) -> None:
        self.works = set(works)
        self.peer = Peer(bytes(32), bytes(32), "peer", "peer", None, IPv6Address("fd00::1"), 1, endpoint=at)
        self.peer.move(Occasion.SESSION_UP)
        self.moves: list[tuple[float, Endpoint]] = []
        self.failed: set[Endpoint] = set()
        self.gone = 0
        tokens = itertools.count()
        self.liveness = Liveness(
            send_frame=lambda peer, frame: self.send(peer.endpoint or DIRECT, frame),
            send_frame_to=lambda peer, endpoint, frame: self.send(endpoint, frame),
            random_bytes=lambda size: next(tokens).to_bytes(size, "big"),
            lost=self.lost,
        )
        tunnels: Any = self
        relaying: Any = self
        self.paths = PathChanges(
            tunnels=tunnels, liveness=self.liveness, relaying=relaying, moved=lambda peer: None
        )

    def send(self, endpoint: Endpoint, frame: frames.Frame) -> None:
        assert isinstance(frame, frames.Ping)
        if endpoint in self.works:
            answer = frames.Pong(frame.token)
            asyncio.get_running_loop().call_later(RTT_S, self.liveness.frame_received, self.peer, answer)

    def aim(self, peer: Peer, endpoint: Endpoint) -> None:
        peer.endpoint = endpoint
        self.moves.append((asyncio.get_running_loop().time(), endpoint))

    def fall_back(self, peer: Peer) -> Endpoint | None:
        if peer.relayed and peer.endpoint is not None:
            self.failed.add(peer.endpoint)
        return next(iter(self.ways_now(peer)), None)

    def ways_now(self, peer: Peer) -> list[Endpoint]:
        return [way for way in (RELAY, OTHER) if way not in self.failed]

    def lost(self, peer: Peer) -> None:
        if not self.paths.fall_back(peer):
            self.gone += 1

    async def silent(self, seconds: float) -> None:
        """As the engine reports it: packets go out, and nothing comes by the path in use."""
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began < seconds:
            await asyncio.sleep(0.25)
            if self.peer.endpoint not in self.works:
                self.liveness.doubt(self.peer)


def scenario(play: Callable[[World], Any], *works: Endpoint, at: Endpoint = DIRECT) -> World:
    async def go() -> World:
        world = World(*works, at=at)
        world.liveness.watch(world.peer)
        began = asyncio.get_running_loop().time()
        await play(world)
        world.moves = [(when - began, where) for when, where in world.moves]
        await world.paths.close()
        await world.liveness.close()
        return world

    return run(go())


def test_a_direct_path_that_dies_is_left_for_a_relay_in_time() -> None:
    async def play(world: World) -> None:
        await asyncio.sleep(1)
        world.works = {RELAY}
        await world.silent(5)

    world = scenario(play, DIRECT, RELAY)
    ((when, where),) = world.moves
    assert where == RELAY and when - 1 < 2.0
    assert world.peer.rtt_ms is not None and not world.gone


def test_a_relay_that_does_not_work_is_left_for_another() -> None:
    async def play(world: World) -> None:
        await asyncio.sleep(1)
        world.works = {OTHER}
        await world.silent(8)

    world = scenario(play, DIRECT)
    assert [where for _, where in world.moves] == [RELAY, OTHER]
    assert world.moves[-1][0] < 1 + 2.0 + 3.5


def test_who_is_told_of_another_relay_while_its_own_works_has_the_two_compared() -> None:
    compared: list[Endpoint] = []

    async def play(world: World) -> None:
        world.paths._peer_left = lambda peer, way: compared.append(way)
        world.peer.last_heard = time.monotonic()
        world.paths.told_by_relay(world.peer, RELAY)
        world.paths.told_by_relay(world.peer, OTHER)
        world.paths.move(world.peer, OTHER)
        world.peer.last_heard = time.monotonic()
        world.paths.told_by_relay(world.peer, RELAY)  # not so soon after a move of our own
        await asyncio.sleep(1)

    world = scenario(play, RELAY, OTHER, at=RELAY)
    assert compared == [OTHER] and [where for _, where in world.moves] == [OTHER]


def test_where_no_relay_works_the_path_is_lost() -> None:
    async def play(world: World) -> None:
        world.works = set()
        await world.silent(10)

    assert scenario(play, DIRECT).gone == 1


def test_a_direct_path_is_taken_when_a_ping_by_it_is_answered() -> None:
    async def play(world: World) -> None:
        for _ in range(3):
            world.paths.heard_elsewhere(world.peer, DIRECT)
        await asyncio.sleep(1)

    world = scenario(play, DIRECT, RELAY, at=RELAY)
    assert [where for _, where in world.moves] == [DIRECT]
    deaf = scenario(play, RELAY, at=RELAY)
    assert deaf.moves == []


def test_a_peer_that_has_left_the_direct_path_is_followed() -> None:
    async def play(world: World) -> None:
        await asyncio.sleep(2 * SILENCE_S)
        world.peer.last_heard = 0.0
        world.paths.told_by_relay(world.peer, RELAY)

    world = scenario(play, RELAY)
    assert [where for _, where in world.moves] == [RELAY]


def test_a_peer_that_has_left_a_relay_is_followed_to_the_next() -> None:
    async def play(world: World) -> None:
        await asyncio.sleep(1)
        world.peer.last_heard = 0.0
        world.paths.told_by_relay(world.peer, OTHER)
        world.paths.told_by_relay(world.peer, RELAY)  # both have left at the same time: one of them stays

    world = scenario(play, RELAY, OTHER, at=RELAY)
    assert [where for _, where in world.moves] == [OTHER]


def test_pings_by_the_path_before_say_nothing_of_the_next() -> None:
    async def play(world: World) -> None:
        await asyncio.sleep(1)
        world.works = {OTHER}
        world.liveness.doubt(world.peer)
        await asyncio.sleep(1)  # most of the five pings are on their way
        world.peer.last_heard = 0.0
        world.paths.told_by_relay(world.peer, OTHER)
        await asyncio.sleep(5)

    world = scenario(play, RELAY, at=RELAY)
    assert [where for _, where in world.moves] == [OTHER] and world.peer.rtt_ms is not None


def test_a_peer_is_not_followed_to_a_relay_that_does_not_work_or_off_one_that_does() -> None:
    async def play(world: World) -> None:
        world.failed.add(OTHER)
        world.peer.last_heard = 0.0
        world.paths.told_by_relay(world.peer, OTHER)
        world.failed.clear()
        world.peer.last_heard = time.monotonic()
        world.paths.told_by_relay(world.peer, OTHER)
        await asyncio.sleep(1)

    assert scenario(play, RELAY, at=RELAY).moves == []


def test_what_comes_by_a_relay_does_not_lead_away_from_a_path_that_works() -> None:
    async def play(world: World) -> None:
        for _ in range(5):
            world.paths.heard_elsewhere(world.peer, RELAY)
            await asyncio.sleep(1)

    assert scenario(play, DIRECT, RELAY).moves == []


def test_of_several_places_the_one_that_answers_is_taken() -> None:
    nowhere = Endpoint("192.0.2.9", 4690)
    found = []

    async def play(world: World) -> None:
        found.append(await world.paths.try_directly(world.peer, [nowhere], 1.0))
        found.append(await world.paths.try_directly(world.peer, [nowhere, DIRECT], 1.0))
        found.append(world.peer.rtt_ms is not None)

    world = scenario(play, DIRECT, RELAY, at=RELAY)
    assert found == [False, True, True]
    assert [where for _, where in world.moves] == [DIRECT]
