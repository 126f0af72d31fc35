"""The timers of one peer (paper section 6): a few named deadlines in monotonic seconds."""

from enum import Enum


class Timer(Enum):
    """What may be due. The order is the order in which timers due at once are handled."""

    ERASE = "erase keys"  # section 6.3
    INITIATE = "initiate"  # sections 6.2 and 6.4: a first initiation that had to wait, or the next attempt
    NO_ANSWER = "no answer"  # section 6.5: sent data, nothing came back
    PASSIVE_KEEPALIVE = "passive keepalive"  # section 6.5: received data, sent nothing
    PERSISTENT_KEEPALIVE = "persistent keepalive"


class Timers:
    """Deadlines by timer. ``due_at`` is the earliest of them, kept so that many peers compare fast."""

    __slots__ = ("_deadlines", "due_at")

    def __init__(self) -> None:
        self._deadlines: dict[Timer, float] = {}
        self.due_at: float | None = None

    def __contains__(self, timer: Timer) -> bool:
        return timer in self._deadlines

    def arm(self, timer: Timer, at: float) -> None:
        """Set a deadline, replacing an earlier one of the same timer."""
        self._deadlines[timer] = at
        self._find_earliest()

    def cancel(self, timer: Timer) -> None:
        if self._deadlines.pop(timer, None) is not None:
            self._find_earliest()

    def cancel_all(self) -> None:
        self._deadlines.clear()
        self.due_at = None

    def take_due(self, now: float) -> list[Timer]:
        """Remove and return what is due."""
        if self.due_at is None or now < self.due_at:
            return []
        due = [timer for timer in Timer if self._deadlines.get(timer, now + 1) <= now]
        for timer in due:
            del self._deadlines[timer]
        self._find_earliest()
        return due

    def _find_earliest(self) -> None:
        self.due_at = min(self._deadlines.values(), default=None)
