"""Keeps the queues before the engine short: tells when a packet is to be marked or dropped.

The engine cannot see how long a packet has waited at the device or in a socket, but it sees whether it ever
gets to the end of what waits there, or near it. A burst is gone after a moment. A queue whose end is not
reached for TARGET_S only adds delay, and TCP makes it longer until it is told: by one lost or marked packet,
and as long as that does not help by further ones, which follow faster and faster (the control law of CoDel,
RFC 8289 section 3.3).
"""

from math import sqrt
from typing import Final

TARGET_S: Final = 0.005  # RFC 8289 section 4.4
INTERVAL_S: Final = 0.1  # RFC 8289 section 4.3: the longest usual round trip, in which a sender reacts


class StandingQueue:
    """One queue. Time comes in as ``now``, seconds."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next_at = 0.0
        self._count = 0

    def turn_ended(self, emptied: bool, now: float) -> None:
        """A turn of reading is over; ``emptied``: nothing was left."""
        if emptied:
            self._since = None
        elif self._since is None:
            self._since = now

    def signal(self, now: float) -> bool:
        """Whether the packet that is handled now is to tell its sender to slow down."""
        if self._since is None or now - self._since < TARGET_S or now < self._next_at:
            return False
        if now - self._next_at > INTERVAL_S:
            self._count = 0
        self._count += 1
        self._next_at = now + INTERVAL_S / sqrt(self._count)
        return True
