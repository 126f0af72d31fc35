"""Own traffic before that of others: how much of the engine's time goes to relaying while both want it.

A cap of octets says what others may take of the line. It says nothing of the processor: a datagram that is
relayed is opened and sealed alone and costs many times what an octet of an own train costs. Pure; ``now`` in
monotonic seconds.
"""

from typing import Final

SHARE: Final = 0.3
"""Of the engine's time goes to relaying at most, while own traffic moves. Ours: the rest is for its own."""
BURST_S: Final = 0.03
"""Of relaying at once."""
OPENING: Final = 2.0
"""What is relayed has been opened, too, which takes as long as sealing it."""
SMALL: Final = 400
"""Octets that pass in any case: pings and handshakes, without which the way counts as lost, and single
acknowledgements and voice."""
WINDOW_S: Final = 0.1
OWN_OCTETS: Final = 1 << 16
"""Own traffic moves when it is so much in a window: 5 Mbit/s. What is less needs no protection."""
LINGER_S: Final = 0.5
"""It is taken to go on for so long."""


class RelayTurns:
    """The account of time. ``own`` and ``worked`` tell what happens, ``allowed`` whether to relay now."""

    __slots__ = ("_at", "_left_s", "_own", "_own_until", "_window_began")

    def __init__(self) -> None:
        self._left_s, self._at = BURST_S, 0.0
        self._own, self._window_began, self._own_until = 0, 0.0, float("-inf")

    def own(self, octets: int, now: float) -> None:
        """So much came or went; less than nothing: so much of what is about to be told is relayed."""
        if now - self._window_began > WINDOW_S:
            self._own, self._window_began = 0, now
        self._own += octets
        if self._own >= OWN_OCTETS:
            self._own_until = now + LINGER_S

    def allowed(self, octets: int, now: float) -> bool:
        """Whether to relay so much now: anything while there is no own traffic."""
        self._left_s = min(BURST_S, self._left_s + SHARE * max(0.0, now - self._at))
        self._at = now
        return octets <= SMALL or self._left_s > 0.0 or now >= self._own_until

    def worked(self, seconds: float) -> None:
        """Sealing and sending what is relayed took so long."""
        self._left_s = max(-BURST_S, self._left_s - OPENING * seconds)
