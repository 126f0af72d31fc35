"""Says when the way from a peer loses nothing: then the peer is to seal super-packets whole. Pure.

One lost datagram costs a whole block, up to 64 KB. So a peer sends blocks only while its receiver wants
them: after a stretch of messages none of which was missing, and until a chunk of a block is. After each loss
it takes longer until they are wanted again: a way that loses a little carries trains nearly all the time.
"""

from typing import Final

from dhtvpn.wireguard.replay import ReplayWindow

STRETCH: Final = 1024
"""Messages, ours: 1.4 MB. A way that loses one in 500 passes it one time in eight."""

HOLD_S, MAX_HOLD_S = 1.0, 64.0
"""Ours: how long a loss is remembered, doubled by each that follows within MAX_HOLD_S of the one before."""

REPEAT_S: Final = 0.02
"""Ours: how long we wait before we say again that we want none; what we said may be lost as well."""


class LossWatch:
    """Of one peer. ``now`` is in seconds."""

    def __init__(self) -> None:
        self._replay: ReplayWindow | None = None
        self._greatest = self._missing = 0
        self._hold = HOLD_S
        self._lost_at = self._said_at = float("-inf")

    def received(self, replay: ReplayWindow, now: float) -> bool:
        """Messages have been accepted that are no blocks. Whether to say that blocks are wanted."""
        if replay is not self._replay:
            self._begin(replay)
            return False
        if replay.greatest - self._greatest < STRETCH:
            return False
        clean = replay.missing <= self._missing
        self._begin(replay)
        return clean and now - self._lost_at >= self._hold

    def lost(self, now: float) -> bool:
        """A block is incomplete, or was not authentic. Whether to say that none are wanted."""
        if now - self._said_at < REPEAT_S:
            return False
        since = now - self._lost_at
        if since >= self._hold:  # else it was sent before the peer could know
            self._hold = min(2 * self._hold, MAX_HOLD_S) if since < MAX_HOLD_S + self._hold else HOLD_S
            self._lost_at = now
        self._said_at = now
        return True

    def _begin(self, replay: ReplayWindow) -> None:
        self._replay, self._greatest, self._missing = replay, replay.greatest, replay.missing
