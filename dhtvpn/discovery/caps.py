"""What one node of the DHT spends on others, derived from how much memory its owner gives."""

from dataclasses import dataclass
from typing import Final

from dhtvpn.discovery.floors import FLOOR_OVERHEAD, MAX_FLOORS
from dhtvpn.discovery.limits import TOTAL_RATE_PER_S
from dhtvpn.discovery.storage import MAX_BYTES
from dhtvpn.discovery.subscriptions import MAX_TOTAL, SUBSCRIPTION_OVERHEAD

STORED_PARTS, FLOOR_PARTS, SUBSCRIPTION_PARTS, PARTS = 7, 2, 2, 16
"""Of the memory. The five that are left over are what tables that are filled again and again lose to
fragmentation: measured as growth of the process, over ten fillings, after which it grows no more."""


@dataclass(frozen=True)
class Caps:
    """Octets of stored envelopes with their bookkeeping, floors, subscriptions; requests per second."""

    stored_octets: int = MAX_BYTES
    floors: int = MAX_FLOORS
    subscriptions: int = MAX_TOTAL
    answers_per_s: float = TOTAL_RATE_PER_S

    @classmethod
    def for_memory(cls, octets: int, answers_per_s: float) -> "Caps":
        """Divide ``octets`` between the three tables, each counted at its measured worst."""
        return cls(
            stored_octets=octets * STORED_PARTS // PARTS,
            floors=octets * FLOOR_PARTS // PARTS // FLOOR_OVERHEAD,
            subscriptions=octets * SUBSCRIPTION_PARTS // PARTS // SUBSCRIPTION_OVERHEAD,
            answers_per_s=answers_per_s,
        )


DEFAULT_CAPS: Final = Caps()
"""A member's: it stores for others too, and has other things to do."""
