"""Probes to real peers' numbers: found, paced, answered, forgotten."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.mesh.relayed import relayed
from dhtvpn.node.path_probes import ROUND_GAP_S, PathProbes

RTT_S = 0.02


class Paths:
    """Peers at the other ends of paths that take ``takes`` bytes of plaintext."""

    def __init__(self, count: int = 1) -> None:
        self.takes = 1440
        self.own_link: int | None = 1440
        self.mtus: list[tuple[Peer, int | None]] = []
        self.sent: list[tuple[float, Peer, int]] = []
        self.acks: list[bytes] = []
        table = PeerTable()
        for number in range(count):
            peer = table.add(
                tunnel_key=number.to_bytes(32, "big"),
                node_key=bytes(32),
                id=f"peer{number}",
                name=f"peer{number}",
                ipv4=IPv4Address("10.7.0.1") + number,
                ipv6=IPv6Address("fd00::1") + number,
            )
            assert peer is not None
            peer.endpoint = Endpoint("192.0.2.1", 1000 + number)
        self.peers = table.all()
        self.probes = PathProbes(
            send_frame=self._send_frame,
            send_probe=self._send,
            set_mtu=self._set_mtu,
            random_bytes=random.Random(1).randbytes,
        )

    def _set_mtu(self, peer: Peer, mtu: int | None) -> None:
        peer.mtu = mtu
        self.mtus.append((peer, mtu))

    def _send_frame(self, peer: Peer, frame: frames.Frame) -> None:
        if isinstance(frame, frames.ProbeAck):
            self.acks.append(frame.token)
        else:
            self._send(peer, frames.encode(frame))

    def _send(self, peer: Peer, plaintext: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.sent.append((loop.time(), peer, len(plaintext)))
        probe = frames.decode(plaintext)
        assert isinstance(probe, frames.Probe)
        if self.own_link is not None and len(plaintext) > self.own_link:
            loop.call_soon(self.probes.refused, peer, len(plaintext))
        elif len(plaintext) <= self.takes:
            loop.call_later(RTT_S, self.probes.frame_received, peer, frames.ProbeAck(probe.token))


def with_paths(test: Callable[[Paths], Coroutine[Any, Any, None]], count: int = 1) -> None:
    async def scenario() -> None:
        paths = Paths(count)
        await test(paths)
        paths.probes.close()

    run(scenario())


def test_a_path_is_measured_in_a_moment() -> None:
    async def test(paths: Paths) -> None:
        (peer,) = paths.peers
        paths.probes.watch(peer)
        await asyncio.sleep(0.3)
        assert paths.mtus == [(peer, None), (peer, 1440)]

    with_paths(test)


def test_a_probe_is_answered_with_its_token() -> None:
    async def test(paths: Paths) -> None:
        paths.probes.frame_received(paths.peers[0], frames.Probe(b"theirs!!"))
        assert paths.acks == [b"theirs!!"]

    with_paths(test)


def test_sixty_peers_at_once_are_paced() -> None:
    async def test(paths: Paths) -> None:
        for peer in paths.peers:
            paths.probes.watch(peer)
        await asyncio.sleep(20)
        assert all(peer.mtu == 1440 for peer in paths.peers)
        times = sorted(at for at, _, _ in paths.sent)
        most = max(sum(start <= at < start + 1 for at in times) for start in times)
        assert most <= 2 / ROUND_GAP_S + 2

    with_paths(test, 60)


def test_only_another_host_is_another_path() -> None:
    async def test(paths: Paths) -> None:
        (peer,) = paths.peers
        paths.probes.watch(peer)
        await asyncio.sleep(0.3)
        peer.endpoint = Endpoint("192.0.2.1", 9)  # a NAT has chosen another port
        paths.probes.endpoint_moved(peer)
        await asyncio.sleep(0.3)
        assert paths.mtus == [(peer, None), (peer, 1440)]
        peer.endpoint, paths.takes, paths.own_link = Endpoint("2001:db8::1", 9), 1420, 1420
        paths.probes.endpoint_moved(peer)
        await asyncio.sleep(0.3)
        assert paths.mtus == [(peer, None), (peer, 1440), (peer, None), (peer, 1420)]

    with_paths(test)


def test_every_new_path_begins_with_what_is_safe_there() -> None:
    """Also where nothing was known of the one before: a relayed path takes less than a direct one."""

    async def scenario(paths: Paths) -> None:
        (peer,) = paths.peers
        paths.takes = 0
        paths.probes.watch(peer)
        assert paths.mtus == [(peer, None)]
        peer.endpoint = relayed(1, peer.number)
        paths.probes.endpoint_moved(peer)
        assert paths.mtus == [(peer, None)] * 2

    with_paths(scenario)


def test_a_path_that_is_gone_is_forgotten() -> None:
    async def test(paths: Paths) -> None:
        (peer,) = paths.peers
        paths.probes.watch(peer)
        await asyncio.sleep(0.3)
        paths.probes.forget(peer)
        count = len(paths.sent)
        await asyncio.sleep(1000)
        paths.probes.forget(peer)
        paths.probes.refused(peer, 1440)
        paths.probes.packets_moved(peer)
        paths.probes.peer_restarted(peer)
        paths.probes.endpoint_moved(peer)
        assert paths.mtus == [(peer, None), (peer, 1440), (peer, None)] and len(paths.sent) == count

    with_paths(test)


def test_a_path_in_use_that_shrinks_is_noticed() -> None:
    async def test(paths: Paths) -> None:
        (peer,) = paths.peers
        paths.own_link = None
        paths.probes.watch(peer)
        await asyncio.sleep(2)
        paths.takes = 1220
        for _ in range(40):
            peer.tx_bytes += 10_000
            paths.probes.packets_moved(peer)
            await asyncio.sleep(0.1)
        assert peer.mtu == 1220

    with_paths(test)


def test_another_run_of_a_peer_may_know_more() -> None:
    async def test(paths: Paths) -> None:
        (peer,) = paths.peers
        paths.takes = 0
        paths.probes.watch(peer)
        await asyncio.sleep(10)
        assert peer.mtu is None
        paths.takes = 1440
        paths.probes.peer_restarted(peer)
        await asyncio.sleep(0.3)
        assert peer.mtu == 1440

    with_paths(test)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_a_peer_without_an_endpoint_waits_for_one(host: str) -> None:
    async def test(paths: Paths) -> None:
        (peer,) = paths.peers
        peer.endpoint = None
        paths.probes.watch(peer)
        assert paths.sent == []
        peer.endpoint = Endpoint(host, 1)
        paths.probes.watch(peer)
        await asyncio.sleep(0.3)
        assert paths.sent[0][2] == 1280 - (80 if ":" in host else 60)

    with_paths(test)
