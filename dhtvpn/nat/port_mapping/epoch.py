"""Whether a gateway has lost its mappings, from the seconds since its start that each answer tells. Pure."""

from typing import Final

_PCP_ALLOWED_BACK_S: Final = 1
_SLACK_S: Final = 2


class Epoch:
    """The clock of one gateway, compared with ours. Both protocols allow a drift between the two."""

    def __init__(self, *, pcp: bool) -> None:
        self._pcp = pcp
        self._last: tuple[int, float] | None = None

    def lost_state(self, epoch_s: int, now: float) -> bool:
        """Take note of ``epoch_s`` at ``now`` (seconds); True where the gateway must have begun anew.

        PCP: RFC 6887 section 8.5. NAT-PMP: RFC 6886 section 3.6, which only looks for a step back.
        """
        last, self._last = self._last, (epoch_s, now)
        if last is None:
            return False
        server_s, client_s = epoch_s - last[0], now - last[1]
        if not self._pcp:
            return server_s < client_s * 7 / 8 - _SLACK_S
        if server_s < -_PCP_ALLOWED_BACK_S:
            return True
        fast = client_s + _SLACK_S < server_s - server_s / 16
        slow = server_s + _SLACK_S < client_s - client_s / 16
        return fast or slow
