"""When a frame leaves an emulated link, if it leaves at all. Pure: time and chance come from outside.

One direction of the link. A frame is delayed by ``delay_s`` give or take ``jitter_s``; jitter alone never
changes the order, so a frame waits at least as long as the one before it. Some frames are lost, and some
overtake: they take half the delay and pass whatever waits before them. Both kinds leave in the order in
which they came, so two queues hold them and no search is needed.
"""

import random
from collections import deque
from dataclasses import dataclass

from dhtvpn.errors import UsageError

QUEUE_MAX = 20_000
"""Frames that wait in one direction at most: 30 MB, a third of a second at 700 Mbit/s."""


@dataclass(frozen=True)
class Conditions:
    """What a link does to frames, one way. Shares are between 0 and 1."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    reordering: float = 0.0

    def __post_init__(self) -> None:
        if self.delay_s < 0 or not 0 <= self.jitter_s <= self.delay_s:
            raise UsageError("a link's jitter lies between zero and its delay")
        if not (0 <= self.loss <= 1 and 0 <= self.reordering <= 1):
            raise UsageError("loss and reordering are shares between 0 and 1")


_ARP, _IPV6 = b"\x08\x06", b"\x86\xdd"
_ICMPV6 = 58
_NEIGHBOUR_DISCOVERY = range(133, 138)
"""Types of ICMPv6 messages (RFC 4861 section 4)."""


def _is_upkeep(frame: bytes) -> bool:
    """Whether an Ethernet frame goes to a group address (IEEE 802.3 section 3.2.3), or is of ARP or of
    IPv6's neighbour discovery."""
    if frame[:1] and frame[0] & 1:
        return True
    if frame[12:14] == _IPV6 and len(frame) > 54:
        return frame[20] == _ICMPV6 and frame[54] in _NEIGHBOUR_DISCOVERY
    return frame[12:14] == _ARP


class OneWay:
    """The frames under way in one direction. The same seed and arrivals give the same departures.

    What a kernel sends on its own, at moments of its own (to groups, ARP, neighbour discovery), has its own
    chances: it does not change what happens to the others.
    """

    def __init__(self, conditions: Conditions, seed: int) -> None:
        self._conditions = conditions
        self._chance = random.Random(f"{seed}")  # noqa: S311 - repeatable, not secret
        self._chance_of_upkeep = random.Random(f"{seed} upkeep")  # noqa: S311
        self._in_order: deque[tuple[float, bytes]] = deque()
        self._overtaking: deque[tuple[float, bytes]] = deque()
        self._last_due = 0.0
        self.lost = self.reordered = self.overflowed = self.carried = self.carried_bytes = 0

    def offer(self, frame: bytes, now: float) -> None:
        """A frame arrives at the link. It is lost, or waits; when too many wait it is dropped."""
        conditions = self._conditions
        chance = (self._chance_of_upkeep if _is_upkeep(frame) else self._chance).random
        if chance() < conditions.loss:
            self.lost += 1
        elif len(self._in_order) + len(self._overtaking) >= QUEUE_MAX:
            self.overflowed += 1
        elif chance() < conditions.reordering:
            self.reordered += 1
            self._overtaking.append((now + conditions.delay_s / 2, frame))
        else:
            due = now + conditions.delay_s + conditions.jitter_s * (2 * chance() - 1)
            self._last_due = max(due, self._last_due)
            self._in_order.append((self._last_due, frame))

    def next_due(self) -> float | None:
        """When the next frame leaves; None when none waits."""
        queues = (self._in_order, self._overtaking)
        return min((queue[0][0] for queue in queues if queue), default=None)

    def take(self, now: float) -> list[bytes]:
        """The frames that leave by ``now``, in the order in which they leave."""
        leaving: list[bytes] = []
        in_order, overtaking = self._in_order, self._overtaking
        while in_order and in_order[0][0] <= now:
            if overtaking and overtaking[0][0] <= in_order[0][0]:
                leaving.append(overtaking.popleft()[1])
            else:
                leaving.append(in_order.popleft()[1])
        while overtaking and overtaking[0][0] <= now:
            leaving.append(overtaking.popleft()[1])
        self.carried += len(leaving)
        self.carried_bytes += sum(map(len, leaving))
        return leaving
