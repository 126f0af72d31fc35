"""Which events a peer's path makes, with which reasons, and what is remembered of it."""

import gc
from ipaddress import IPv4Address, IPv6Address
from types import SimpleNamespace
from typing import Any

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Occasion, Peer
from dhtvpn.mesh.relayed import place_of, relayed
from dhtvpn.node.happenings import Happening
from dhtvpn.node.path_facts import PathFact, Why
from dhtvpn.node.path_history import KEPT_CHANGES, PathHistory

DIRECT, ELSEWHERE, RELAY, MEMBER = (
    Endpoint("192.0.2.7", 4690),
    Endpoint("192.0.2.8", 4690),
    relayed(1, 1),
    relayed(2, 1),
)
VOLUNTEER = Endpoint("198.51.100.1", 4690)


class Relays:
    """Way 1 is a volunteer, way 2 a member."""

    def members_of(self, endpoint: Endpoint | None) -> list[Any]:
        by_member = endpoint is not None and place_of(endpoint).via == 2  # type: ignore[union-attr]
        return [SimpleNamespace(name="server")] if by_member else []

    def volunteer_of(self, endpoint: Endpoint | None) -> Endpoint | None:
        return VOLUNTEER if endpoint == RELAY else None


class World:
    def __init__(self) -> None:
        self.told: list[Happening] = []
        self.now = 1000.0
        self.history = PathHistory(relays=Relays(), tell=self.told.append, unix_time=lambda: self.now)
        self.peer = Peer(
            bytes(32), bytes(32), "id", "laptop", IPv4Address("10.7.0.2"), IPv6Address("fd00::1"), 1
        )

    def at(self, endpoint: Endpoint | None, occasion: Occasion, why: Why | None = None) -> list[str]:
        """The peer is at ``endpoint`` now; the events that a look gives."""
        before = len(self.told)
        self.peer.endpoint = endpoint
        self.peer.move(occasion)
        if why is not None:
            self.history.because(self.peer, why)
        self.history.look(self.peer)
        return [each.event for each in self.told[before:]]


def test_a_life_of_a_path() -> None:
    world = World()
    assert world.at(None, Occasion.NEWS) == ["connecting"]
    assert world.at(RELAY, Occasion.SESSION_UP) == ["connected"]
    assert world.at(RELAY, Occasion.SESSION_UP) == [], "nothing new"
    assert world.at(DIRECT, Occasion.SESSION_UP, Why.CHECKS) == ["upgraded"]
    assert world.history.reason(world.peer) == (Why.CHECKS, 1000.0)
    assert world.at(MEMBER, Occasion.SESSION_UP) == ["fallen-back"]
    assert world.at(RELAY, Occasion.SESSION_UP, Why.BETTER_RELAY) == ["path-changed"]
    assert world.at(RELAY, Occasion.PATH_LOST) == ["connecting"]
    assert world.at(RELAY, Occasion.NO_PATH) == ["unreachable"]
    assert world.at(DIRECT, Occasion.SESSION_UP) == ["connected"]
    assert world.at(DIRECT, Occasion.GONE) == ["left"]
    assert [change.why for change in world.history.changes(world.peer)] == [
        Why.RELAYED_FIRST,
        Why.CHECKS,
        Why.SILENT,
        Why.BETTER_RELAY,
        Why.SILENT,
        Why.HANDSHAKE,
        Why.SILENT,
    ]


def test_the_facts_of_a_change() -> None:
    world = World()
    world.at(MEMBER, Occasion.SESSION_UP)
    world.at(DIRECT, Occasion.SESSION_UP)
    upgraded = world.told[-1]
    assert upgraded.facts() == {
        "peer": "laptop",
        "id": "id",
        "from": {"path": "relayed", "endpoint": None, "relay": {"kind": "member", "members": ["server"]}},
        "to": {"path": "direct", "endpoint": "192.0.2.7:4690", "relay": None},
        "why": "a direct path works",
    }
    assert upgraded.text == "laptop is reached directly at 192.0.2.7:4690 now: a direct path works"
    world.at(RELAY, Occasion.SESSION_UP, Why.PEER_LEFT_PATH)
    assert "through the relay at 198.51.100.1:4690 now: the peer has left" in world.told[-1].text


def test_a_reason_is_for_the_next_look_only() -> None:
    world = World()
    world.at(DIRECT, Occasion.SESSION_UP)
    assert world.at(DIRECT, Occasion.SESSION_UP, Why.BETTER_RELAY) == []
    world.at(RELAY, Occasion.SESSION_UP)
    assert world.history.changes(world.peer)[-1].why is Why.SILENT


def test_a_peer_that_roams_with_every_packet_does_not_flood() -> None:
    world = World()
    world.at(DIRECT, Occasion.SESSION_UP)
    for number in range(100):
        world.now += 0.1
        world.at(ELSEWHERE if number % 2 else DIRECT, Occasion.SESSION_UP)
    assert len(world.told) == 1 and len(world.history.changes(world.peer)) == KEPT_CHANGES
    world.now += 5
    assert world.at(DIRECT, Occasion.SESSION_UP) == ["path-changed"]


def test_a_path_that_was_not_looked_at_has_no_reason() -> None:
    world = World()
    world.at(DIRECT, Occasion.SESSION_UP)
    world.peer.endpoint = ELSEWHERE
    assert world.history.reason(world.peer) is None


def test_a_peer_that_is_gone_is_forgotten() -> None:
    world = World()
    world.at(DIRECT, Occasion.SESSION_UP)
    del world.peer
    gc.collect()
    assert len(world.history._known) == 0


def test_paths_in_words() -> None:
    assert str(PathFact(True, "192.0.2.7:1")) == "directly at 192.0.2.7:1"
    assert str(PathFact(False, members=("a", "b"))) == "through a, b"
    assert str(PathFact(False, volunteer="192.0.2.9:1")) == "through the relay at 192.0.2.9:1"
