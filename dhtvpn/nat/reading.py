"""How much of a flood is read: a share of one core for the port's readers, and thinner flooders.

Pure; ``now`` in monotonic seconds. What is not read fills the kernel's receive buffer, and what does not
fit there is dropped by the kernel at little cost. So that the one who floods loses more of it than everybody
else, sources that send the most are thinned in the kernel (socket_filter.py) while the share does not last.
"""

from collections import Counter
from typing import Final

from dhtvpn.nat.socket_filter import PASS_BITS, source_key

SHARE: Final = 0.1
"""Of one core, for reading datagrams and acting on them. Ours: some 4,000 datagrams a second, many times
what a node of a large network gets; the rest of the core is for the engine and for the machine's owner."""

BURST_S: Final = 0.3
"""CPU seconds at once. Ours: a thousand members that all come up in the same moment."""

LEAST_PAUSE_S: Final = 0.004
"""After each batch once half of that is used: waking up for every datagram would cost more than the
datagrams, and nobody would see it in the account."""

WINDOW_S: Final = 0.25
"""How often the sources are looked at."""

FAIR_PER_WINDOW: Final = 250
"""Datagrams that one source may send while there is a flood: 1,000 a second."""

MAX_COUNTED: Final = 4096
"""Sources counted in one window; of forged addresses beyond that nothing is to be learned."""

MAX_THINNED: Final = 16
"""Sources thinned at one time: the filter compares with each."""


class ReadBudget:
    """CPU seconds that may be spent on reading: ``share`` of the time, up to BURST_S saved."""

    def __init__(self, now: float, share: float | None = None) -> None:
        """``share``: SHARE unless given."""
        self._share = SHARE if share is None else share
        self._left_s = BURST_S
        self._at = now

    def spend(self, cpu_s: float, now: float) -> float:
        """Take what a batch has cost; returns how long to pause, in seconds, mostly 0."""
        self._left_s = min(BURST_S, self._left_s + max(0.0, now - self._at) * self._share) - cpu_s
        self._at = now
        if self._left_s > BURST_S / 2:
            return 0.0
        return max(LEAST_PAUSE_S, -self._left_s / self._share)

    @property
    def exhausted(self) -> bool:
        """Nothing is left."""
        return self._left_s <= 0.0


class Thinning:
    """Who is thinned, and how much: :attr:`sources` maps an address (socket_filter.source_key) to n,
    one datagram in 2**n passes."""

    def __init__(self, now: float) -> None:
        self.sources: dict[bytes, int] = {}
        self._counts: Counter[str] = Counter()
        self._since = now
        self._flooded = False

    def count(self, host: str) -> None:
        """A datagram from ``host`` was read."""
        if host in self._counts or len(self._counts) < MAX_COUNTED:
            self._counts[host] += 1

    def flooded(self, now: float) -> None:
        """The budget did not last. Sources are worth counting from now on."""
        if not self.active:
            self._since = now
        self._flooded = True

    @property
    def active(self) -> bool:
        """Whether there is anything to review."""
        return bool(self.sources) or self._flooded

    def review(self, now: float) -> bool:
        """Judge the sources anew, about every WINDOW_S. True when :attr:`sources` has changed."""
        fair = FAIR_PER_WINDOW * max(1.0, (now - self._since) / WINDOW_S)
        read: Counter[bytes] = Counter()
        for host, number in self._counts.items():
            read[source_key(host)] += number
        sources = {}
        for source, bits in self.sources.items():
            bits_now = bits + _excess_bits(read[source], fair) - (read[source] < fair / 2)
            if bits_now > 0:
                sources[source] = min(bits_now, PASS_BITS)
        if self._flooded:
            for source, number in read.most_common(MAX_THINNED):
                bits = _excess_bits(number, fair)
                if bits and source not in sources and len(sources) < MAX_THINNED:
                    sources[source] = min(bits, PASS_BITS)
        self._counts.clear()
        self._since, self._flooded = now, False
        changed = sources != self.sources
        self.sources = sources
        return changed


def _excess_bits(number: int, fair: float) -> int:
    """How often ``number`` must be halved to be fair."""
    return max(0, int(number / fair)).bit_length() if number > fair else 0
