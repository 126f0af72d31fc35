"""How long a path may be idle: found out by trying, path by path. Pure.

Every ping of an idle path shows that the NATs on the way have kept their mappings for as long as it was idle:
the one at its far end, which lets in what comes, and in turn the other, for either side may be the one that
pings. So idle times grow while pings are answered. One that is not answered after a longer time than before
came too late: the path is made anew, once, and from then on left idle for no longer than it had survived.
"""

from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 15.0
"""Idle time of a new path. UDP mappings last two minutes at least by RFC 4787 (REQ-5), 30 s in practice, and
with a few routers 20 s."""

LONGEST_S: Final = 60.0
"""Ours: a peer that has gone without a word is noticed within this and a few seconds. Longer saves next to
nothing: at 60 s handshakes cost more than pings."""

STEP: Final = 1.3
"""Each time by so much: the first time that is too long is not far beyond the lifetime."""

SPREAD: Final = 0.1
"""Of the idle time, either way: chance decides which side pings, so that both directions are tried."""


@dataclass
class IdleTime:
    """Of one path. Times in seconds."""

    interval_s: float = FIRST_S
    """Ping when nothing was heard for so long."""
    limit_s: float = LONGEST_S
    """Longer was too long once."""
    survived_s: float = FIRST_S
    """The longest that did no harm."""

    def survived(self, idle_s: float) -> None:
        """A ping after ``idle_s`` without any packet was answered."""
        self.survived_s = max(self.survived_s, idle_s)
        if idle_s >= self.interval_s * (1 - 2 * SPREAD):
            self.interval_s = min(self.interval_s * STEP, self.limit_s)

    def died(self, idle_s: float) -> None:
        """Pings after ``idle_s`` without any packet were not answered. Where the first interval was too long,
        that has other causes."""
        if idle_s > FIRST_S * (1 + SPREAD):
            self.limit_s = max(FIRST_S, min(self.survived_s, idle_s) / (1 + SPREAD))
        self.interval_s = FIRST_S

    def due_s(self, chance: float) -> float:
        """The next idle time, spread by ``chance`` from 0 to 1."""
        return self.interval_s * (1 - SPREAD + 2 * SPREAD * chance)
