"""Pings: the round trip, the answer to others, and the moment when a path counts as lost."""

import asyncio
from typing import Any

from peers_in_table import add_peer
from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.node import keepalive
from dhtvpn.node import liveness as module
from dhtvpn.node.liveness import Liveness


class Path:
    """One peer at the other end of a path that works until it is cut."""

    def __init__(self) -> None:
        peer = add_peer(PeerTable(), 9)
        self.peer, self.cut, self.delay_s = peer, False, 0.02
        self.sent: list[frames.Frame] = []
        self.lost: list[Peer] = []
        self.is_lost = asyncio.Event()
        self.counter, self.chance = 0, 1
        self.lifetime_s, self.used_at = float("inf"), 0.0
        self.liveness = Liveness(send_frame=self._send, random_bytes=self._token, lost=self._lost)

    def _lost(self, peer: Peer) -> None:
        self.lost.append(peer)
        self.is_lost.set()

    def _token(self, size: int) -> bytes:
        self.counter += self.chance
        return (self.counter % 256**size).to_bytes(size, "big")

    def _send(self, peer: Peer, frame: frames.Frame) -> None:
        self.sent.append(frame)
        idle_s = asyncio.get_running_loop().time() - self.used_at
        if isinstance(frame, frames.Ping) and not self.cut and idle_s <= self.lifetime_s:
            self.used_at += idle_s
            answer = frames.Pong(frame.token)
            asyncio.get_running_loop().call_later(self.delay_s, self.liveness.frame_received, peer, answer)


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
async def test_a_cut_path_is_lost_after_some_unanswered_pings() -> None:
    path = Path()
    loop = asyncio.get_running_loop()
    path.liveness.watch(path.peer)
    await asyncio.sleep(100)
    assert not path.lost
    path.cut = True
    began = loop.time()
    await path.is_lost.wait()
    pings_s = (module.PINGS - 1) * module.LONGEST_GAP_S + module.LONGEST_WAIT_S
    assert loop.time() - began <= keepalive.LONGEST_S * (1 + keepalive.SPREAD) + pings_s
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
async def test_who_is_late_itself_waits_for_answers_that_lie_unread() -> None:
    path = Path()
    loop = asyncio.get_running_loop()
    path.liveness.watch(path.peer)
    await asyncio.sleep(1)
    pings_s = (module.PINGS - 1) * module.PING_GAP_S + module.LAST_WAIT_S
    path.delay_s = pings_s + 1.3  # the engine, too, waits for a processor
    path.liveness.doubt(path.peer)
    await asyncio.sleep(pings_s - 0.3)
    loop.jump(1.2)  # type: ignore[attr-defined]
    await asyncio.sleep(1)
    assert not path.lost
    path.cut = True
    path.liveness.doubt(path.peer)
    await path.is_lost.wait()
    await path.liveness.close()


@scenario
async def test_outstanding_pings_have_a_cap() -> None:
    path = Path()
    path.cut = True
    pings = [asyncio.create_task(path.liveness.ping(path.peer)) for _ in range(3 * module.MAX_WAITING)]
    await asyncio.sleep(0.1)
    assert len(path.liveness._waiting[path.peer.number].sent) == module.MAX_WAITING
    assert await asyncio.gather(*pings) == [None] * len(pings)


@scenario
async def test_a_stream_without_answers_is_doubted_within_a_second_or_two() -> None:
    path = Path()
    path.liveness.watch(path.peer)
    await asyncio.sleep(5)
    path.cut = True
    began = asyncio.get_running_loop().time()
    while not path.lost:
        path.peer.tx_bytes += 100
        path.liveness.packets_moved(path.peer)
        await asyncio.sleep(0.25)
    assert asyncio.get_running_loop().time() - began <= 2.75


@scenario
async def test_a_stream_in_one_direction_is_asked_about_and_goes_on() -> None:
    path = Path()
    path.liveness.watch(path.peer)
    for _ in range(400):
        path.peer.tx_bytes += 100
        path.liveness.packets_moved(path.peer)
        await asyncio.sleep(0.25)
    pings = sum(isinstance(frame, frames.Ping) for frame in path.sent)
    assert not path.lost and 20 < pings <= 101
    await path.liveness.close()


@scenario
async def test_a_packet_now_and_then_needs_no_answer() -> None:
    path = Path()
    path.liveness.watch(path.peer)
    for _ in range(50):
        path.peer.tx_bytes += 100
        path.liveness.packets_moved(path.peer)
        await asyncio.sleep(5)
    pings = sum(isinstance(frame, frames.Ping) for frame in path.sent)
    assert pings <= 250 / (keepalive.FIRST_S * (1 - keepalive.SPREAD)) + 1
    await path.liveness.close()


@scenario
async def test_a_round_trip_of_a_second_is_no_reason_to_give_up() -> None:
    path = Path()
    path.delay_s = 1.0
    path.liveness.watch(path.peer)
    for _ in range(100):
        path.liveness.doubt(path.peer)
        await asyncio.sleep(2.5)
    assert not path.lost and path.peer.rtt_ms is not None
    await path.liveness.close()


@scenario
async def test_either_side_pings_and_idle_times_grow_to_what_is_useful() -> None:
    """Two nodes on a path without any NAT, at rest for an hour."""
    one, other = Path(), Path()
    octets = 0

    def carry(sender: Path, receiver: Path) -> Any:
        def send(peer: Peer, frame: frames.Frame) -> None:
            nonlocal octets
            octets += 76  # IPv4 and UDP headers, data message header and tag, a frame padded to 16
            sender.peer.tx_bytes += 48
            receiver.peer.heard_bytes += 48
            for end in (sender, receiver):
                end.liveness.packets_moved(end.peer)
            receiver.liveness.frame_received(receiver.peer, frame)  # type: ignore[arg-type]

        return send

    one.liveness._send_frame, other.liveness._send_frame = carry(one, other), carry(other, one)
    for end in (one, other):
        end.liveness._answer_frame = end.liveness._send_frame
    one.chance, other.chance = 7, 13
    for end in (one, other):
        end.liveness.watch(end.peer)
    await asyncio.sleep(600)
    assert not one.lost and not other.lost
    assert max(one.liveness.idle_time(one.peer).interval_s, 0) == keepalive.LONGEST_S
    octets = 0
    await asyncio.sleep(3600)
    assert octets / 2 / 3600 < 3, "octets a second each way; passive keepalives and handshakes come on top"
    await one.liveness.close()
    await other.liveness.close()


@scenario
async def test_a_mapping_that_lives_for_half_a_minute_is_found_out_by_losing_it_once() -> None:
    path = Path()
    path.lifetime_s = 30.0
    losses = 0
    for _ in range(4):
        path.is_lost.clear()
        path.used_at = asyncio.get_running_loop().time()
        path.liveness.watch(path.peer)
        try:
            await asyncio.wait_for(path.is_lost.wait(), 600)
        except TimeoutError:
            break
        losses += 1
    assert losses == 1
    assert keepalive.FIRST_S < path.liveness.idle_time(path.peer).interval_s < 30
    path.liveness.network_changed()
    assert path.liveness.idle_time(path.peer).interval_s == keepalive.FIRST_S
    await path.liveness.close()


OTHER_WAY = Endpoint("198.18.9.9", 9)


def with_another_way(path: Path, answers: bool) -> list[float]:
    """Give the peer a second way; returns where the moments stand at which it was asked there."""
    asked: list[float] = []

    def send_to(peer: Peer, endpoint: Endpoint, frame: frames.Frame) -> None:
        loop = asyncio.get_running_loop()
        asked.append(loop.time())
        if answers and isinstance(frame, frames.Ping):
            loop.call_later(0.16, path.liveness.frame_received, peer, frames.Pong(frame.token))

    path.liveness = Liveness(
        send_frame=path._send,
        send_frame_to=send_to,
        random_bytes=path._token,
        lost=path._lost,
        other_way=lambda _: OTHER_WAY,
    )
    return asked


async def lost_after(path: Path) -> float:
    """Seconds from a cut in the midst of traffic, as the engine reports it, to the loss."""
    path.liveness.watch(path.peer)
    for _ in range(20):
        path.peer.tx_bytes += 100
        path.peer.heard_bytes += 100
        path.liveness.packets_moved(path.peer)
        await asyncio.sleep(0.25)
    path.cut = True
    began = asyncio.get_running_loop().time()
    while not path.lost:
        path.peer.tx_bytes += 100
        path.liveness.packets_moved(path.peer)
        await asyncio.sleep(0.25)
        assert asyncio.get_running_loop().time() < began + 30
    return asyncio.get_running_loop().time() - began


@scenario
async def test_a_peer_that_answers_by_another_way_has_lost_this_one() -> None:
    path = Path()
    asked = with_another_way(path, answers=True)
    assert await lost_after(path) <= 1.5
    assert len(asked) == 1
    await path.liveness.close()


@scenario
async def test_a_peer_that_answers_nowhere_gets_as_many_pings_as_without_another_way() -> None:
    """It may be busy, or its machine."""
    silent, alone = Path(), Path()
    with_another_way(silent, answers=False)
    head_start_s = module.SILENCE_S - module.SILENCE_BESIDE_S
    assert await lost_after(silent) == await lost_after(alone) - head_start_s >= 1.75
    for path in (silent, alone):
        await path.liveness.close()


@scenario
async def test_a_path_that_works_is_not_left_because_another_does_too() -> None:
    path = Path()
    asked = with_another_way(path, answers=True)
    path.delay_s = 0.3
    path.liveness.watch(path.peer)
    for _ in range(100):
        path.liveness.doubt(path.peer)
        await asyncio.sleep(2)
    assert not path.lost and len(asked) <= 1, "asked at most until the round trip is known"
    await path.liveness.close()


@scenario
async def test_a_standstill_of_this_process_is_no_silence_of_the_peer() -> None:
    path = Path()
    path.liveness.watch(path.peer)
    await asyncio.sleep(5)
    path.cut = True
    loop, sent = asyncio.get_running_loop(), len(path.sent)
    path.liveness.doubt(path.peer)
    await asyncio.sleep(0.01)
    loop.time, real = (lambda: real() + stood_still), loop.time  # type: ignore[method-assign]
    stood_still = 5.0
    await asyncio.sleep(0.6)
    assert not path.lost, "the waits of that time were none"
    await path.is_lost.wait()
    assert len(path.sent) - sent == module.PINGS + 1
    await path.liveness.close()
