"""A token bucket of octets: how much may pass, and how much at once. Pure."""

from typing import Final

BURST_S: Final = 0.25
"""What may pass at once, of a second's worth: TCP sends in bursts."""
LEAST_BURST: Final = 1 << 18
"""Octets: four full runs of datagrams."""


class Bucket:
    """Octets that may pass: ``rate`` a second, and a burst. Full at first. ``now`` in monotonic seconds."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._burst = self._level = max(rate * BURST_S, LEAST_BURST)
        self._at = now

    def take(self, octets: int, now: float) -> bool:
        """Whether ``octets`` may pass now; if not, nothing is taken."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._level < octets:
            return False
        self._level -= octets
        return True
