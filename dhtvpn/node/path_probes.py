"""Measures the path MTU to every peer: carries the probes of ``mesh/path_mtu.py`` and paces them.

One timer serves all peers. The one that has waited longest goes first, and a round of one peer keeps a
distance to the round of the next, so that sixty peers that come at once do not flood anybody with frames.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.path_mtu import IPV4_OVERHEAD, IPV6_OVERHEAD, RELAY_OVERHEAD, PathMtu
from dhtvpn.mesh.peers import Peer
from dhtvpn.mesh.relayed import is_relayed

log = logging.getLogger(__name__)

ROUND_GAP_S: Final = 0.025
"""Between rounds of different peers, ours: 80 probes a second at most, of the 200 control frames that the
other side's engine lets through (dataplane/frame_gate.py)."""


class _Watched:
    def __init__(self, peer: Peer, host: str, machine: PathMtu) -> None:
        self.peer, self.host, self.machine = peer, host, machine


class PathProbes:
    """``send_frame`` sends a frame as it is, ``send_probe`` a plaintext unfragmented; ``set_mtu`` is told of
    each change, None where nothing is known. What is to be used then depends on the path: so it is told of
    each new path, too."""

    def __init__(
        self,
        *,
        send_frame: Callable[[Peer, frames.Frame], None],
        send_probe: Callable[[Peer, bytes], None],
        set_mtu: Callable[[Peer, int | None], None],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._send_frame = send_frame
        self._send_probe = send_probe
        self._set_mtu = set_mtu
        self._random_bytes = random_bytes
        self._watched: dict[int, _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._arming: asyncio.Handle | None = None
        self._next_round_at = 0.0

    def watch(self, peer: Peer) -> None:
        """Measure the path to ``peer`` from now on; again from the start where it leads to another host."""
        if peer.endpoint is None:
            return
        watched = self._watched.get(peer.number)
        if watched is None:
            machine = PathMtu(_overhead(peer.endpoint), self._random_bytes, self._now())
            self._watched[peer.number] = _Watched(peer, peer.endpoint.host, machine)
            self._set_mtu(peer, machine.mtu)
        elif watched.host != peer.endpoint.host:
            watched.host = peer.endpoint.host
            self._restart(watched, peer.endpoint)
        self._schedule()

    def endpoint_moved(self, peer: Peer) -> None:
        """The peer is somewhere else now, perhaps."""
        if peer.number in self._watched:
            self.watch(peer)

    def peer_restarted(self, peer: Peer) -> None:
        """It is another run of the peer, perhaps of another version."""
        watched = self._watched.get(peer.number)
        if watched is not None and peer.endpoint is not None:
            self._restart(watched, peer.endpoint)
            self._schedule()

    def forget(self, peer: Peer) -> None:
        """The path is gone."""
        if self._watched.pop(peer.number, None) is not None:
            self._set_mtu(peer, None)
            self._schedule()

    def frame_received(self, peer: Peer, frame: frames.Probe | frames.ProbeAck) -> None:
        """Answer a Probe; take an answer to ours."""
        watched = self._watched.get(peer.number)
        if isinstance(frame, frames.Probe):
            self._send_frame(peer, frames.ProbeAck(frame.token))
            if watched is not None:
                watched.machine.answers()
        elif watched is not None:
            watched.machine.acknowledged(frame.token, self._now())
            self._after(watched)

    def refused(self, peer: Peer, size: int) -> None:
        """Our own link does not take a probe of ``size`` bytes of plaintext."""
        watched = self._watched.get(peer.number)
        if watched is not None:
            watched.machine.refused(size, self._now())
            self._after(watched)

    def packets_moved(self, peer: Peer) -> None:
        """The peer's byte counters have changed."""
        watched = self._watched.get(peer.number)
        if watched is not None:
            watched.machine.packets_sent(peer.tx_bytes, self._now())
            self._after(watched)

    def close(self) -> None:
        """Send nothing more."""
        self._watched.clear()
        for handle in (self._timer, self._arming):
            if handle is not None:
                handle.cancel()

    def _restart(self, watched: _Watched, endpoint: Endpoint) -> None:
        watched.machine.restart(_overhead(endpoint), self._now())
        self._set_mtu(watched.peer, watched.machine.mtu)

    def _after(self, watched: _Watched) -> None:
        mtu = watched.machine.mtu
        if mtu != watched.peer.mtu:
            log.info("peer %s: path MTU %s", watched.peer.id, mtu or "unknown")
            self._set_mtu(watched.peer, mtu)
        self._schedule()

    def _schedule(self) -> None:
        """Look for the next timeout, once for all that comes together: that takes a look at every peer."""
        if self._arming is None:
            self._arming = asyncio.get_running_loop().call_soon(self._arm)

    def _arm(self) -> None:
        self._arming = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min((each.machine.next_timeout() for each in self._watched.values()), default=float("inf"))
        if due < float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(due, self._next_round_at), self._fire)

    def _fire(self) -> None:
        if not self._watched:
            return  # the last one went in this very round of the event loop
        now = self._now()
        watched = min(self._watched.values(), key=lambda each: each.machine.next_timeout())
        probes = watched.machine.handle_timeout(now)
        for probe in probes:
            frame = frames.Probe(probe.token)
            if probe.size is None:
                self._send_frame(watched.peer, frame)
            else:
                self._send_probe(watched.peer, frames.encode(frame).ljust(probe.size, b"\0"))
        if probes:
            self._next_round_at = now + ROUND_GAP_S
        self._after(watched)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _overhead(endpoint: Endpoint) -> int:
    if is_relayed(endpoint):
        return IPV6_OVERHEAD + RELAY_OVERHEAD
    return IPV6_OVERHEAD if endpoint.is_ipv6 else IPV4_OVERHEAD
