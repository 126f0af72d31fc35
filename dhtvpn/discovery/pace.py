"""A token bucket: so many at once, so many per second after that. Pure; ``now`` in monotonic seconds."""


class Pace:
    """Starts full."""

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._level, self._at = burst, now

    def take(self, now: float) -> bool:
        """Take one; False when none is left."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True
