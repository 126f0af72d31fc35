"""The highest rate that gets through with little loss, found by trials. Pure.

From a guess, the rate goes up or down by a factor until one trial passes and a higher one fails; then the
gap is halved (geometrically) until it is narrow. A rate that fails gets a second trial, because on a
machine with few cores any process that wakes up at the wrong moment loses packets for everybody.
"""

import math
from dataclasses import dataclass

MAX_LOSS = 0.01
STEP = 1.6
"""Factor between two rates while looking for the bracket."""

NARROW = 1.06
"""The bracket is narrow when the rates differ by less than this factor."""

SLOWEST = 500.0
"""Packets/s; a tunnel that loses 1% of this has no rate worth telling."""

OFFER_SHARE = 0.9
"""A sender that twice managed less than this share of the rate it was told cannot go faster."""


@dataclass(frozen=True)
class Trial:
    """What one trial came to."""

    sent: int
    arrived: int
    seconds: float

    @property
    def loss(self) -> float:
        return max(0.0, 1 - self.arrived / self.sent) if self.sent else 1.0

    @property
    def arrived_per_s(self) -> float:
        return self.arrived / self.seconds if self.seconds > 0 else 0.0

    @property
    def sent_per_s(self) -> float:
        return self.sent / self.seconds if self.seconds > 0 else 0.0


class RateSearch:
    """Ask ``next_rate``, run a trial at it, tell ``report``; until ``next_rate`` is None."""

    def __init__(self, guess: float, max_trials: int) -> None:
        self._rate = max(guess, SLOWEST)
        self._trials_left = max_trials
        self._passed: float | None = None
        self._failed: float | None = None
        self._second_trial = False
        self.best: float | None = None
        """Packets per second that arrived in the best trial that passed."""

    def next_rate(self) -> float | None:
        """The rate to offer next, packets/s; None when the search is over: the bracket is narrow, or
        there were enough trials and one of them passed, or even the slowest rate fails."""
        if self._rate < SLOWEST or (self._trials_left <= 0 and self._passed):
            return None
        if self._passed and self._failed and self._failed / self._passed < NARROW:
            return None
        return self._rate

    def report(self, trial: Trial) -> None:
        """What came of the trial at ``next_rate``."""
        self._trials_left -= 1
        passed = trial.loss < MAX_LOSS
        if passed:
            self.best = max(self.best or 0.0, trial.arrived_per_s)
        offered = trial.sent_per_s >= OFFER_SHARE * self._rate
        if not (passed and offered) and not self._second_trial:
            self._second_trial = True
            return
        self._second_trial = False
        if passed:
            self._passed = self._rate
        if not (passed and offered):
            self._failed = self._rate
        self._choose()

    def _choose(self) -> None:
        if self._passed and self._failed:
            self._rate = math.sqrt(self._passed * self._failed)
        elif self._passed:
            self._rate = self._passed * STEP
        elif self._failed:
            self._rate = self._failed / STEP
