"""TAI64N time stamps (https://cr.yp.to/libtai/tai64.html): 8 bytes of seconds, 4 of nanoseconds, big-endian.

Comparing two of them as byte strings compares the times.
"""

from typing import Final

from dhtvpn.wireguard.constants import TIMESTAMP_SIZE

EPOCH: Final = (1 << 62) + 10
"""The label of 1970-01-01 00:00:00 UTC: TAI was ten seconds ahead then; leap seconds since are not counted,
as in every WireGuard implementation."""

_NANOSECONDS: Final = 1_000_000_000
_GRANULARITY: Final = (
    1 << 24
)  # nanoseconds, 17 ms: what the clock shows a peer, so that it is no timing oracle
_MAX: Final = (1 << 64) * _NANOSECONDS - 1


def encode(nanoseconds: int) -> bytes:
    """``nanoseconds`` since the Unix epoch as 12 bytes."""
    total = min(max(EPOCH * _NANOSECONDS + nanoseconds, 0), _MAX)
    seconds, rest = divmod(total, _NANOSECONDS)
    return seconds.to_bytes(8, "big") + rest.to_bytes(4, "big")


def decode(stamp: bytes) -> int:
    """Nanoseconds since the Unix epoch. Raises ValueError for a wrong length."""
    if len(stamp) != TIMESTAMP_SIZE:
        raise ValueError(f"a TAI64N time stamp has {TIMESTAMP_SIZE} bytes, not {len(stamp)}")
    seconds = int.from_bytes(stamp[:8], "big") - EPOCH
    return seconds * _NANOSECONDS + int.from_bytes(stamp[8:], "big")


class Stamper:
    """Makes stamps that strictly increase, whatever the clock does while this process lives."""

    def __init__(self) -> None:
        self._last: int | None = None

    def stamp(self, unix_time: float) -> bytes:
        """A stamp for ``unix_time``, coarse by 17 ms, and later than every one before."""
        nanoseconds = int(unix_time * _NANOSECONDS)
        nanoseconds -= nanoseconds % _GRANULARITY
        if self._last is not None and nanoseconds <= self._last:
            nanoseconds = self._last + 1
        self._last = nanoseconds
        return encode(nanoseconds)
