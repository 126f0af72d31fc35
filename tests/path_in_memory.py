"""A path with a true MTU, in virtual time, and a PathMtu at its one end."""

import heapq
import random
from collections.abc import Callable

from dhtvpn.mesh.path_mtu import IPV4_OVERHEAD, PathMtu, Probe, State


class Path:
    """``outer`` is what the path takes whole, in bytes with all headers; ``link`` what the sender's own link
    takes. ``loses(size)`` decides about each probe that fits."""

    def __init__(
        self,
        outer: int,
        *,
        overhead: int = IPV4_OVERHEAD,
        link: int | None = None,
        rtt_s: float = 0.02,
        loses: Callable[[int], bool] = lambda _: False,
        answers: bool = True,
        seed: int = 1,
    ) -> None:
        self.outer, self.link, self.rtt_s, self.loses, self.answers = outer, link, rtt_s, loses, answers
        self.overhead = overhead
        self.now = 100.0
        self.sent: list[tuple[float, int]] = []
        self.mtus: list[tuple[float, int | None]] = []
        self._acks: list[tuple[float, bytes]] = []
        self._traffic = 0
        self._own = 0
        source = random.Random(seed)
        self.machine = PathMtu(overhead, source.randbytes, self.now)

    @property
    def truth(self) -> int:
        """Bytes of an inner packet."""
        return self.outer - self.overhead

    def run(self, duration_s: float, *, traffic: bool = False) -> None:
        """Let time pass; with ``traffic``, a lot goes to the peer all the time."""
        end = self.now + duration_s
        step = 0.25
        report = self.now + step
        while True:
            moments = [self.machine.next_timeout(), *(self._acks[0][:1] if self._acks else ())]
            if traffic:
                moments.append(report)
            moment = max(self.now, min(moments))
            if moment > end:
                self.now = end
                return
            self.now = moment
            if traffic and report <= self.now:
                report = self.now + step
                self.packets(100_000)
            while self._acks and self._acks[0][0] <= self.now:
                self.machine.acknowledged(heapq.heappop(self._acks)[1], self.now)
                self._note()
            for probe in self.machine.handle_timeout(self.now):
                self._send(probe)
            self._note()

    def packets(self, octets: int) -> None:
        """So much goes to the peer now."""
        self._traffic += octets
        self.machine.packets_sent(self._traffic + self._own, self.now)

    def run_until_searched(self) -> float:
        """Seconds until the search was complete."""
        began = self.now
        while self.machine.state is not State.SEARCH_COMPLETE:
            assert self.now - began < 120, self.machine.state
            self.run(0.05)
        return self.now - began

    def _send(self, probe: Probe) -> None:
        size = 16 if probe.size is None else probe.size
        self.sent.append((self.now, size))
        outer = size + self.overhead
        if self.link is not None and outer > self.link:
            assert probe.size is not None
            self.machine.refused(size, self.now)
            return
        self._own += size + 32
        if self.answers and outer <= self.outer and not self.loses(size):
            heapq.heappush(self._acks, (self.now + self.rtt_s, probe.token))

    def _note(self) -> None:
        mtu = self.machine.mtu
        if not self.mtus or self.mtus[-1][1] != mtu:
            self.mtus.append((self.now, mtu))
