"""Hellos: each side of a session says who it is and what it understands, until it has heard the other.

A Hello that the network lost would leave the pair without trains until there are new keys, two minutes later.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer

REPEAT_S: Final = (1.0, 2.0, 4.0)
"""Waits before a Hello that was not answered is said again. Ours: from a slow relay's round trip upwards."""
JUST_NOW_S: Final = 0.9
"""A Hello of ours that is younger may still be on its way: none is said in answer."""


@dataclass
class _Greeted:
    """One peer. Seconds of the event loop."""

    said_at: float
    timer: asyncio.TimerHandle | None = None


class Greetings:
    """``hello`` makes ours. What is said and heard is as in docs/protocol/control-frames.md."""

    def __init__(
        self, *, hello: Callable[[], frames.Hello], send_frame: Callable[[Peer, frames.Frame], None]
    ) -> None:
        self._hello, self._send_frame = hello, send_frame
        self._greeted: dict[int, _Greeted] = {}

    def session_up(self, peer: Peer) -> None:
        """A handshake is complete: say Hello, and again until the peer has."""
        self.forget(peer)
        self._say(peer, heard=False)
        self._repeat(peer, REPEAT_S)

    def received(self, peer: Peer, hello: frames.Hello) -> None:
        """A Hello of ``peer``, which says whether it has heard ours."""
        greeted = self._greeted.get(peer.number)
        if greeted is not None and greeted.timer is not None:
            greeted.timer.cancel()
            greeted.timer = None
        if hello.features & frames.FEATURE_HEARD:
            return
        now = asyncio.get_running_loop().time()
        if greeted is None or now - greeted.said_at >= JUST_NOW_S:
            self._say(peer, heard=True)

    def forget(self, peer: Peer) -> None:
        """There is no session any more."""
        greeted = self._greeted.pop(peer.number, None)
        if greeted is not None and greeted.timer is not None:
            greeted.timer.cancel()

    def close(self) -> None:
        """Say nothing more."""
        for greeted in self._greeted.values():
            if greeted.timer is not None:
                greeted.timer.cancel()
        self._greeted.clear()

    def _say(self, peer: Peer, *, heard: bool) -> None:
        hello = self._hello()
        if heard:
            hello = replace(hello, features=hello.features | frames.FEATURE_HEARD)
        self._greeted.setdefault(peer.number, _Greeted(0.0)).said_at = asyncio.get_running_loop().time()
        self._send_frame(peer, hello)

    def _repeat(self, peer: Peer, waits_s: tuple[float, ...]) -> None:
        if waits_s:
            later = asyncio.get_running_loop().call_later
            self._greeted[peer.number].timer = later(waits_s[0], self._say_again, peer, waits_s[1:])

    def _say_again(self, peer: Peer, waits_s: tuple[float, ...]) -> None:
        self._say(peer, heard=False)
        self._repeat(peer, waits_s)
