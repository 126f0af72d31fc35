"""Pings: the round trip, the answer to others, and the moment when a path counts as lost."""

import asyncio
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from virtual_time import run

from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.node import liveness as module
from dhtvpn.node.liveness import Liveness


class Path:
    """One peer at the other end of a path that works until it is cut."""

    def __init__(self) -> None:
        peer = PeerTable().add(
            tunnel_key=bytes(32),
            node_key=bytes(32),
            id="peer",
            name="peer",
            ipv4=IPv4Address("10.7.0.2"),
            ipv6=IPv6Address("fd00::2"),
        )
        assert peer is not None
        self.peer, self.cut = peer, False
        self.sent: list[frames.Frame] = []
        self.lost: list[Peer] = []
        self.is_lost = asyncio.Event()
        self.counter = 0
        self.liveness = Liveness(send_frame=self._send, random_bytes=self._token, lost=self._lost)

    def _lost(self, peer: Peer) -> None:
        self.lost.append(peer)
        self.is_lost.set()

    def _token(self, size: int) -> bytes:
        self.counter += 1
        return self.counter.to_bytes(size, "big")

    def _send(self, peer: Peer, frame: frames.Frame) -> None:
        self.sent.append(frame)
        if isinstance(frame, frames.Ping) and not self.cut:
            answer = frames.Pong(frame.token)
            asyncio.get_running_loop().call_later(0.02, self.liveness.frame_received, peer, answer)


def scenario(test: Any) -> Any:
    def wrapped() -> None:
        run(test())

    wrapped.__name__ = test.__name__
    return wrapped


@scenario
async def test_a_ping_measures_and_is_answered() -> None:
    path = Path()
    assert await path.liveness.ping(path.peer) is not None
    assert path.peer.rtt_ms is not None
    path.liveness.frame_received(path.peer, frames.Ping(b"theirs!!"))
    assert path.sent[-1] == frames.Pong(b"theirs!!")


@scenario
async def test_answers_that_nobody_asked_for_change_nothing() -> None:
    path = Path()
    path.liveness.frame_received(path.peer, frames.Pong(b"unasked!"))
    path.cut = True
    assert await path.liveness.ping(path.peer) is None
    assert path.peer.rtt_ms is None


@scenario
async def test_a_cut_path_is_lost_after_four_seconds_of_silence() -> None:
    path = Path()
    loop = asyncio.get_running_loop()
    path.liveness.watch(path.peer)
    await asyncio.sleep(100)
    assert not path.lost
    path.cut = True
    began = loop.time()
    await path.is_lost.wait()
    assert loop.time() - began <= module.INTERVAL_S + module.LOST_AFTER * module.REPLY_DEADLINE_S + 0.2
    assert path.lost == [path.peer] and path.peer.rtt_ms is None
    await path.liveness.close()


@scenario
async def test_traffic_counts_as_a_sign_of_life() -> None:
    path = Path()
    path.cut = True
    path.liveness.watch(path.peer)
    for _ in range(600):
        path.peer.heard_bytes += 100
        await asyncio.sleep(0.1)
    assert not path.lost
    await path.liveness.close()


@scenario
async def test_outstanding_pings_have_a_cap() -> None:
    path = Path()
    path.cut = True
    pings = [asyncio.create_task(path.liveness.ping(path.peer)) for _ in range(3 * module.MAX_WAITING)]
    await asyncio.sleep(0.1)
    assert len(path.liveness._waiting[path.peer.number].sent) == module.MAX_WAITING
    assert await asyncio.gather(*pings) == [None] * len(pings)
