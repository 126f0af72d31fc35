"""How good a way through relays is, by the pings that were sent on it. Pure."""

from collections import deque
from typing import Final

KEPT: Final = 8
"""Pings that count, ours: a minute ago is another time."""
ENOUGH: Final = 3
"""Pings before a way is judged."""
LOSS_WEIGHT: Final = 10.0
"""A tenth of the pings lost is as bad as twice the round trip: loss slows TCP down more than delay."""
LEAST_LOSS_MS: Final = 10.0
"""So much time a lost packet counts for at least: on a fast way, too, TCP waits longer than a round trip."""
SHARE, MARGIN_MS = 0.7, 5.0
"""Another way is better when its score is below this share of the present one's, and so much below it. One
with less of a penalty needs the margin alone: members come before volunteers where they are as fast."""


class WaySamples:
    """The newest pings of one way. ``penalty_ms`` is added to its score."""

    def __init__(self, penalty_ms: float = 0.0) -> None:
        self.penalty_ms = penalty_ms
        self._round_trips_ms: deque[float | None] = deque(maxlen=KEPT)

    def add(self, round_trip_ms: float | None) -> None:
        """A ping was answered after so long, or not at all (None)."""
        self._round_trips_ms.append(round_trip_ms)

    @property
    def loss(self) -> float:
        """Share of the pings without an answer, 0 where none was sent."""
        count = len(self._round_trips_ms)
        return sum(each is None for each in self._round_trips_ms) / count if count else 0.0

    @property
    def changed(self) -> bool:
        """Whether the newest ping was answered and the one before was not, or the other way round."""
        newest = list(self._round_trips_ms)[-2:]
        return len(newest) == 2 and (newest[0] is None) != (newest[1] is None)

    @property
    def judged(self) -> bool:
        """Whether there were enough."""
        return len(self._round_trips_ms) >= ENOUGH

    @property
    def score(self) -> float:
        """Milliseconds that stand for delay and loss: the less the better."""
        answered = [each for each in self._round_trips_ms if each is not None]
        if not answered:
            return float("inf")
        mean_ms = sum(answered) / len(answered)
        return mean_ms + LOSS_WEIGHT * self.loss * max(mean_ms, LEAST_LOSS_MS) + self.penalty_ms


def is_as_good(other: WaySamples, present: WaySamples) -> bool:
    """Whether to follow the peer from the ``present`` way to the ``other``: both are pinged the same."""
    return other.judged and other.score < float("inf") and not is_better(present, other)


def is_better(other: WaySamples, present: WaySamples) -> bool:
    """Whether to leave the ``present`` way for the ``other``."""
    if not (other.judged and present.judged):
        return False
    share = 1.0 if other.penalty_ms < present.penalty_ms else SHARE
    return other.score < min(share * present.score, present.score - MARGIN_MS)
