"""How fast bytes go to and come from each peer, from two readings of its counters. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Rate(NamedTuple):
    """Bytes a second from and to a peer."""

    down: float
    up: float


class Throughput:
    """Compares each status document with the one before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int]] = {}
        self._at = 0.0
        self._uptime_s = 0.0

    def update(self, document: Mapping[str, Any], now: float) -> dict[str, Rate]:
        """Rates by peer id since the last call; none for a peer that is new, or after the node has started
        again. ``now`` in monotonic seconds."""
        counters = {peer["id"]: (peer["rx_bytes"], peer["tx_bytes"]) for peer in document["peers"]}
        elapsed_s, same_run = now - self._at, document["uptime_s"] >= self._uptime_s
        rates = {}
        for identity, (received, sent) in counters.items():
            before = self._before.get(identity)
            if before is None or not same_run or elapsed_s <= 0:
                continue
            down, up = received - before[0], sent - before[1]
            if down >= 0 and up >= 0:  # counters begin anew with the engine
                rates[identity] = Rate(down / elapsed_s, up / elapsed_s)
        self._before, self._at, self._uptime_s = counters, now, document["uptime_s"]
        return rates
