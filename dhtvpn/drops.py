"""Count what was dropped, by room and reason: the only trace that bad bytes leave."""

from collections import Counter
from collections.abc import Mapping


class Drops:
    """Counters named ``room.reason``, for example ``record.signature``. Names are literals of ours,
    never a peer's bytes, so the table cannot grow past the code's own vocabulary."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, room: str, reason: str, number: int = 1) -> None:
        self._counts[f"{room}.{reason}"] += number

    def merge(self, counts: Mapping[str, int]) -> None:
        """Set counters that another process owns (absolute values, names as ``room.reason``)."""
        for name, value in counts.items():
            self._counts[name] = value

    def as_dict(self) -> dict[str, int]:
        return dict(sorted(self._counts.items()))

    def total(self) -> int:
        return sum(self._counts.values())
