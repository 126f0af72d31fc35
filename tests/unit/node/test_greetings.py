"""Hellos over a path that loses them: both sides come to know each other, and nobody talks on for ever."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from itertools import product

import pytest
from peers_in_table import add_peer
from virtual_time import run

from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.node.greetings import JUST_NOW_S, REPEAT_S, Greetings

HELLO = frames.Hello(bytes(16), frames.FEATURE_TRAINS, "here")


class Side:
    """One end of a path of ``delay_s`` one way, which loses the Hellos of the given numbers."""

    def __init__(self, delay_s: float, lost: Collection[int] = ()) -> None:
        peer = add_peer(PeerTable(), 9)
        self.peer, self.delay_s, self.lost = peer, delay_s, lost
        self.said: list[frames.Hello] = []
        self.heard: list[frames.Hello] = []
        self.other: Side | None = None
        self.greetings = Greetings(hello=lambda: HELLO, send_frame=self._send)

    def _send(self, peer: Peer, frame: frames.Frame) -> None:
        assert isinstance(frame, frames.Hello)
        number = len(self.said)
        self.said.append(frame)
        if self.other is not None and number not in self.lost:
            asyncio.get_running_loop().call_later(self.delay_s, self.other._receive, frame)

    def _receive(self, hello: frames.Hello) -> None:
        self.heard.append(hello)
        self.greetings.received(self.peer, hello)


async def session(one: Side, other: Side) -> None:
    """A session of two minutes that ``one`` has begun."""
    one.other, other.other = other, one
    asyncio.get_running_loop().call_later(one.delay_s, other.greetings.session_up, other.peer)
    one.greetings.session_up(one.peer)
    await asyncio.sleep(120.0)


@pytest.mark.parametrize("delay_s", [0.001, 0.02, 0.3])
def test_one_hello_of_each_is_all_where_none_is_lost(delay_s: float) -> None:
    one, other = Side(delay_s), Side(delay_s)
    run(session(one, other))
    assert one.said == other.said == [HELLO]


LOSSES: tuple[Collection[int], ...] = ((), (0,), (0, 1), (1,), (0, 2))


@pytest.mark.parametrize("delay_s", [0.001, 0.3, 0.7, 2.0])
@pytest.mark.parametrize(("of_one", "of_other"), list(product(LOSSES, LOSSES)))
def test_both_have_heard_and_then_are_silent(
    delay_s: float, of_one: Collection[int], of_other: Collection[int]
) -> None:
    one, other = Side(delay_s, of_one), Side(delay_s, of_other)
    run(session(one, other))
    assert one.heard
    assert other.heard
    assert max(len(one.said), len(other.said)) <= 2 * (1 + len(REPEAT_S))


def test_a_side_that_hears_nothing_gives_up() -> None:
    one = Side(0.02, range(9))
    run(session(one, Side(0.02, range(9))))
    assert one.said == [HELLO] * (1 + len(REPEAT_S))


def test_what_has_been_heard_is_not_answered_and_what_crosses_ours_is_not() -> None:
    async def scenario() -> None:
        one = Side(0.02)
        one.greetings.session_up(one.peer)
        one.greetings.received(one.peer, HELLO)
        await asyncio.sleep(2 * JUST_NOW_S)
        one.greetings.received(one.peer, replace(HELLO, features=frames.FEATURE_HEARD))
        assert one.said == [HELLO]
        one.greetings.received(one.peer, HELLO)
        assert one.said[1:] == [replace(HELLO, features=HELLO.features | frames.FEATURE_HEARD)]

    run(scenario())


@pytest.mark.parametrize("end", ["forget", "close"])
def test_nothing_is_said_after_the_end(end: str) -> None:
    async def scenario() -> None:
        one = Side(0.02)
        one.greetings.session_up(one.peer)
        if end == "forget":
            one.greetings.forget(one.peer)
        one.greetings.close()
        await asyncio.sleep(sum(REPEAT_S) + 1.0)
        assert one.said == [HELLO]

    run(scenario())
