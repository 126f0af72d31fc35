"""A node's own pace: how many requests it answers, in total and of whom, decided before one is parsed.

Token buckets in tables of fixed size, so that a flood from any number of forged addresses neither grows
anything nor pushes out what is known of others. Under load the quiet come first, then the proven.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from dhtvpn.discovery.shares import Holder, holder_of
from dhtvpn.endpoint import Endpoint

RATE_PER_S: Final = 100.0
"""Requests per second that one IPv4 address or IPv6 /64 gets answered on average."""

BURST: Final = 400.0
"""Requests at once: a few dozen nodes behind one NAT that all start together."""

PREFIX_RATE_PER_S, PREFIX_BURST = 400.0, 1600.0
"""The same for an IPv4 /24 or an IPv6 /48: four addresses' worth."""

QUIET_RATE_PER_S, QUIET_BURST = 2.0, 30.0
"""A prefix within this is quiet: some members that look up and renew. It is served when others are not."""

TOTAL_RATE_PER_S: Final = 1000.0
"""Requests per second of everybody together. A tenth of a core or so; a volunteer's node has more."""

ANY_ABOVE, QUIET_ABOVE = 0.5, 0.25
"""How full the total bucket must be for any request, and for one from a quiet prefix. Below that only
quiet ones from proven addresses are answered."""

VALUES_PER_ANSWER: Final = 4
"""Envelopes sent along that count as one more answer."""

SLOWER, LEAST_PACE, SLOWER_EVERY_S = 0.5, 0.02, 0.25
"""What the total rate is multiplied by when the processor cannot keep up, how low it may go, how often."""

RECOVERY_PER_S: Final = 0.1
"""What part of the whole rate comes back per second."""

CELLS: Final = 4096
"""Buckets in a table, about 64 KB. Whom a flood shares a cell with in both of his places suffers with it:
with 500 flooding prefixes one in 70."""

MAX_PROVEN: Final = 4096
"""Addresses remembered as proven; the one proven longest ago makes room. Nobody forges his way in."""

PROVEN_FOR_S: Final = 600.0


class Cells:
    """Token buckets by hashed name: two cells for a name, and it has what the fuller one has."""

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._levels = [burst] * CELLS
        self._at = [now] * CELLS

    def fill(self, cell: int, now: float) -> float:
        """Bring ``cell`` up to ``now``; returns what is in it."""
        level = min(self._burst, self._levels[cell] + (now - self._at[cell]) * self._rate)
        self._levels[cell], self._at[cell] = level, now
        return level

    def has(self, cells: tuple[int, int], now: float) -> bool:
        """Whether one more is in it."""
        one, other = self.fill(cells[0], now), self.fill(cells[1], now)
        return one >= 1.0 or other >= 1.0

    def take(self, cells: tuple[int, int], number: float = 1.0) -> None:
        """What is not there any more is let off."""
        for cell in cells:
            self._levels[cell] = max(0.0, self._levels[cell] - number)


class AnswerLimit:
    """Ask ``allows`` before anything of a request is parsed."""

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        now: float,
        *,
        total_per_s: float = TOTAL_RATE_PER_S,
        rate_per_s: float = RATE_PER_S,
        burst: float = BURST,
    ) -> None:
        self._key = random_bytes(16)
        self._total_rate, self._total_burst = total_per_s, max(total_per_s, 64.0)
        self._total, self._at = self._total_burst, now
        self._pace, self._slowed_at = 1.0, float("-inf")
        self._addresses = Cells(rate_per_s, burst, now)
        self._prefixes = Cells(PREFIX_RATE_PER_S, PREFIX_BURST, now)
        self._quiet = Cells(QUIET_RATE_PER_S, QUIET_BURST, now)
        self._proven: OrderedDict[bytes, float] = OrderedDict()

    def allows(self, source: Endpoint, now: float) -> bool:
        """Take one from the buckets of the source, of its prefix and of all; False when one is empty."""
        holder = holder_of(source)
        self._refill(now)
        address, prefix = self._cells(holder)
        quiet = self._quiet.has(prefix, now)
        if quiet:
            self._quiet.take(prefix)
        if self._total < self._needed(quiet, holder, now):
            return False
        if not (self._prefixes.has(prefix, now) and self._addresses.has(address, now)):
            return False
        self._prefixes.take(prefix)
        self._addresses.take(address)
        self._total -= 1.0
        return True

    def sent_values(self, source: Endpoint, number: int) -> None:
        """An answer was long: it counts as more of them. So octets are limited too, to some 4,500 for one."""
        more = number / VALUES_PER_ANSWER
        address, prefix = self._cells(holder_of(source))
        self._addresses.take(address, more)
        self._prefixes.take(prefix, more)
        self._total = max(0.0, self._total - more)

    def slow_down(self, now: float) -> None:
        """More came than could be read in time: answer less, so that reading catches up. What is refused
        costs a tenth of what is answered."""
        if now - self._slowed_at >= SLOWER_EVERY_S:
            self._pace, self._slowed_at = max(LEAST_PACE, self._pace * SLOWER), now

    def proven(self, source: Endpoint, now: float) -> None:
        """``source`` has shown a valid token: its address is real."""
        address = holder_of(source).address
        self._proven[address] = now
        self._proven.move_to_end(address)
        if len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)

    @property
    def busy(self) -> bool:
        """Whether only quiet prefixes are served."""
        return self._total < ANY_ABOVE * self._total_burst * self._pace

    def _refill(self, now: float) -> None:
        elapsed_s = now - self._at
        self._at = now
        self._pace = min(1.0, self._pace + elapsed_s * RECOVERY_PER_S)
        gained = elapsed_s * self._total_rate * self._pace
        self._total = min(self._total_burst * self._pace, self._total + gained)

    def _needed(self, quiet: bool, holder: Holder, now: float) -> float:
        """What must be in the total bucket for this one."""
        if not quiet:
            return ANY_ABOVE * self._total_burst * self._pace
        if now - self._proven.get(holder.address, float("-inf")) < PROVEN_FOR_S:
            return 1.0
        return QUIET_ABOVE * self._total_burst * self._pace

    def _cells(self, holder: Holder) -> tuple[tuple[int, int], tuple[int, int]]:
        """Two cells for the address, two for the prefix; nobody can compute whom he shares them with."""
        address = hashlib.blake2b(holder.address, key=self._key, digest_size=4).digest()
        prefix = hashlib.blake2b(holder.prefix, key=self._key, digest_size=4).digest()
        return _pair(address), _pair(prefix)


def _pair(digest: bytes) -> tuple[int, int]:
    return int.from_bytes(digest[:2], "big") % CELLS, int.from_bytes(digest[2:], "big") % CELLS
