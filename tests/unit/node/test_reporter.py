"""What a node tells as events beside its paths."""

from types import SimpleNamespace
from typing import Any

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer
from dhtvpn.node.events import Events
from dhtvpn.node.reporter import Reporter

HERE, MOVED, ELSEWHERE = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.1", 2), Endpoint("192.0.2.9", 1)


class World:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.events = Events(lambda kind, text: self.said.append((kind, text)))
        port: Any = SimpleNamespace(count_kernel_drops=lambda: None)
        relays: Any = None
        self.reporter = Reporter(events=self.events, relays=relays, port=port, drops=Drops())

    def told(self) -> list[dict[str, Any]]:
        return list(self.events._ring)


def test_a_failed_attempt_is_told_of_ever_more_rarely() -> None:
    world = World()
    peer: Any = SimpleNamespace(name="laptop", id="abc", relayed=False)
    typed: Peer = peer
    for number in range(1, 101):
        world.reporter.attempt_failed(typed, number)
    assert [event["attempt"] for event in world.told()] == [1, 2, 4, 8, 16, 32, 64]
    assert world.told()[0]["text"] == "laptop: no path in 1 attempt, trying again"


def test_a_lost_mapping() -> None:
    world = World()
    for seen in ([], [HERE], [HERE, ELSEWHERE], [MOVED, ELSEWHERE], []):
        world.reporter.seen_from_outside(seen, steady=True)
    lost = [(event["from"], event["to"]) for event in world.told()]
    assert lost == [([str(HERE)], [str(MOVED)]), ([str(MOVED), str(ELSEWHERE)], [])]
    assert world.told()[1]["text"].endswith("but as unknown")


def test_a_nat_with_a_port_for_every_destination_loses_nothing_by_another_port() -> None:
    world = World()
    for seen in ([HERE], [MOVED], [HERE, MOVED]):
        world.reporter.seen_from_outside(seen, steady=False)
    assert world.told() == []
    world.reporter.seen_from_outside([ELSEWHERE], steady=False)
    assert [event["event"] for event in world.told()] == ["nat-mapping-lost"]


def test_the_engine_and_members() -> None:
    world = World()
    world.reporter.engine_ended(-9, 0.0)
    world.reporter.engine_ended(3, 0.5)
    world.reporter.engine_restarted(2)
    world.reporter.found("laptop", "abc", "lan")
    assert [event["event"] for event in world.told()] == [
        "engine-ended",
        "engine-ended",
        "engine-restarted",
        "peer-found",
    ]
    assert world.said == [
        ("warning", "the engine process was ended by signal 9; another one is started now"),
        ("warning", "the engine process ended unexpectedly (exit code 3); another one is started in 0.5 s"),
        ("warning", "there is a new engine process: sessions are made again"),
        ("member", "laptop is found"),
    ]
