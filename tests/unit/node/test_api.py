"""Pings of the local API: the path of every reply, and when it becomes direct."""

import asyncio
from typing import Any

import pytest
from seen_node import BY_SERVER, THEIRS, SeenNode
from virtual_time import run

from dhtvpn.errors import NotFoundError
from dhtvpn.mesh.peers import Occasion, Peer
from dhtvpn.mesh.relayed import relayed
from dhtvpn.node.api import LocalApi

RELAYED = relayed(BY_SERVER, 1)


class World:
    """The n-th ping is answered by the n-th path; None: not at all."""

    def __init__(self, *answers: Any) -> None:
        self.node: Any = SeenNode()
        self.peer = self.node.add("laptop", RELAYED)
        self.answers = list(answers)
        self.tried: list[Peer] = []
        self.node.liveness = self
        self.node.try_for_direct = self.tried.append
        self.api = LocalApi(self.node)

    async def ping(self, peer: Peer) -> float | None:
        await asyncio.sleep(0.02)
        answer = self.answers.pop(0)
        if answer is None:
            return None
        peer.heard_at = answer
        return 20.0

    def replies(self, count: int, *, until_direct: bool = False) -> list[dict[str, Any]]:
        async def scenario() -> list[dict[str, Any]]:
            return [reply async for reply in self.api.ping("laptop", count, 1.0, until_direct)]

        return run(scenario())


def test_the_path_is_that_of_the_answer() -> None:
    world = World(RELAYED, RELAYED, THEIRS, THEIRS, RELAYED, THEIRS)
    replies = world.replies(6)
    paths = [reply["path"] for reply in replies]
    assert paths == ["relayed", "relayed", "direct", "direct", "relayed", "direct"]
    assert [reply["became_direct"] for reply in replies] == [False, False, True, False, False, True]
    assert replies[2]["endpoint"] == str(THEIRS) and replies[0]["endpoint"] is None
    assert [reply["seq"] for reply in replies] == [1, 2, 3, 4, 5, 6]
    assert not world.tried


def test_what_is_direct_from_the_start_has_not_become_it() -> None:
    assert [reply["became_direct"] for reply in World(THEIRS, None, THEIRS).replies(3)] == [False] * 3


def test_after_lost_pings_the_first_direct_answer_counts() -> None:
    replies = World(None, None, THEIRS).replies(3)
    assert [reply["rtt_ms"] for reply in replies] == [None, None, 20.0]
    assert [reply["became_direct"] for reply in replies] == [False, False, True]


def test_until_direct_has_both_sides_try_and_ends() -> None:
    world = World(RELAYED, THEIRS, THEIRS)
    assert len(world.replies(30, until_direct=True)) == 2
    assert world.tried == [world.peer]


def test_a_peer_without_a_path() -> None:
    world = World(None)
    world.peer.move(Occasion.PATH_LOST)
    (reply,) = world.replies(1)
    assert (reply["path"], reply["endpoint"], reply["relay"]) == (None, None, None)


def test_why_and_graph() -> None:
    world = World()
    assert world.api.why("laptop")["path"]["path"] == "relayed"
    assert len(world.api.graph()["nodes"]) == 2
    with pytest.raises(NotFoundError):
        world.api.why("nobody")
