"""Sends sealed datagrams to a peer's endpoint: as runs, one call each, where the kernel cuts runs.

Peers are spread over the sockets of their family: what stands in a queue towards one fills the buffer of its
own socket only.

Sending never waits. What the socket does not take at once is dropped and counted: the queue of a tunnel
belongs to the programs that use it, and TCP finds out how fast it may send.
"""

import errno
import logging
import socket
from collections.abc import Iterable, Sequence

from dhtvpn.dataplane.peers import Peer
from dhtvpn.dataplane.sockets import (
    DEFER,
    MAX_RUN_BYTES,
    MAX_RUN_DATAGRAMS,
    NO_RUNS,
    NOT_OURS,
    TOO_LONG,
    ecn_option,
    segment_option,
)
from dhtvpn.dataplane.unfragmented import unfragmented
from dhtvpn.drops import Drops

log = logging.getLogger(__name__)


class Transmitter:
    """``segments`` tells the address families that can send runs (UDP_SEGMENT)."""

    def __init__(self, sockets: Iterable[socket.socket], segments: dict[int, bool], drops: Drops) -> None:
        self._lanes: dict[int, list[socket.socket]] = {}
        for sock in sockets:
            self._lanes.setdefault(int(sock.family), []).append(sock)
        self._segments = dict(segments)
        self._drops = drops

    def send(self, peer: Peer, datagrams: Sequence[bytes], ecn: int) -> bool:
        """Send ``datagrams`` in order, equal neighbours together. Whether any of them left."""
        before, start, count = peer.tx_bytes, 0, len(datagrams)
        while start < count:
            end = _run_end(datagrams, start) if self._segments.get(peer.family) else start + 1
            self._send_parts(peer, datagrams[start:end], len(datagrams[start]), ecn)
            start = end
        return peer.tx_bytes != before

    def send_run(self, peer: Peer, run: memoryview, stride: int, ecn: int) -> bool:
        """Send the datagrams in ``run``, each ``stride`` bytes long but the last, which may be shorter."""
        before = peer.tx_bytes
        if self._segments.get(peer.family) or len(run) <= stride:
            self._send_parts(peer, [run], stride, ecn)
        else:
            self._one_by_one(peer, [run], stride, ecn)
        return peer.tx_bytes != before

    def send_unfragmented(self, peer: Peer, datagram: bytes) -> bool:
        """Send one datagram that no link may fragment. False where our own link does not take it whole."""
        sock = self._lane(peer)
        if peer.address is None or sock is None:
            self._drops.count("dataplane", "probe_unsent")
            return True
        try:
            with unfragmented(sock):
                peer.tx_bytes += sock.sendmsg([datagram], peer.source, 0, peer.address)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return False
            self._drops.count("dataplane", "probe_unsent")
        return True

    def _send_parts(self, peer: Peer, parts: Sequence[bytes | memoryview], stride: int, ecn: int) -> None:
        """One call for datagrams of ``stride`` bytes; where the kernel does not take them so, one by one. A
        datagram that is too long for the path leaves in fragments (docs/protocol/engine.md)."""
        sock, size = self._lane(peer), sum(map(len, parts))
        count = -(-size // stride)
        if peer.address is None or sock is None:
            self._drops.count("dataplane", "no_endpoint", count)
            return
        options = ecn_option(peer.family, ecn) + peer.source
        if count > 1:
            options += segment_option(stride)
        try:
            peer.tx_bytes += sock.sendmsg(parts, options, 0, peer.address)
        except OSError as error:
            if error.errno in DEFER:
                self._drops.count("dataplane", "udp_busy", count)
            elif peer.source and error.errno in NOT_OURS:
                peer.source = []
                self._send_parts(peer, parts, stride, ecn)
            elif count > 1 and error.errno in (TOO_LONG | NO_RUNS):
                if error.errno in NO_RUNS:
                    log.info("this kernel does not send runs of datagrams (%s): one by one", error.strerror)
                    self._segments[peer.family] = False
                self._one_by_one(peer, parts, stride, ecn)
            else:
                self._drops.count("dataplane", "udp_refused", count)

    def _lane(self, peer: Peer) -> socket.socket | None:
        lanes = self._lanes.get(peer.family)
        return lanes[peer.number % len(lanes)] if lanes else None

    def _one_by_one(self, peer: Peer, parts: Sequence[bytes | memoryview], stride: int, ecn: int) -> None:
        for part in parts:
            for start in range(0, len(part), stride):
                datagram = part[start : start + stride]
                self._send_parts(peer, [datagram], len(datagram), ecn)


def _run_end(datagrams: Sequence[bytes], start: int) -> int:
    """Where the run ends that begins at ``start``: equal lengths, and one shorter datagram at its end."""
    size, count = len(datagrams[start]), len(datagrams)
    limit = min(count, start + MAX_RUN_DATAGRAMS, start + max(1, MAX_RUN_BYTES // size))
    end = start + 1
    while end < limit and len(datagrams[end]) == size:
        end += 1
    if end < limit and len(datagrams[end]) < size:
        end += 1
    return end
