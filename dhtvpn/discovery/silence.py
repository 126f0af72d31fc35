"""Endpoints that were asked and said nothing: not worth a query for a while, whoever tells us about them.

Most are nodes behind NATs that let nobody in; each costs a lookup its soft timeout only once a minute.
"""

from collections import OrderedDict

from dhtvpn.endpoint import Endpoint

SILENT_AFTER_S = 1.0
"""Unanswered for this long is silent; longer than the round trip of any usable path."""

SILENT_FOR_S = 60.0
"""After this it gets another chance: it may have been restarted."""

MAX_SILENT = 4096
"""Entries; the oldest makes room."""


class Silence:
    """When each unanswered endpoint was first asked."""

    def __init__(self) -> None:
        self._asked_at: OrderedDict[Endpoint, float] = OrderedDict()

    def asked(self, endpoint: Endpoint, now: float) -> None:
        """A request goes out."""
        since = self._asked_at.get(endpoint)
        if since is not None and now - since < SILENT_FOR_S:
            return
        self._asked_at[endpoint] = now
        self._asked_at.move_to_end(endpoint)
        if len(self._asked_at) > MAX_SILENT:
            self._asked_at.popitem(last=False)

    def broken(self, endpoint: Endpoint) -> None:
        """A datagram came from there."""
        self._asked_at.pop(endpoint, None)

    def holds(self, endpoint: Endpoint, now: float) -> bool:
        """Whether it has been silent lately."""
        since = self._asked_at.get(endpoint)
        return since is not None and SILENT_AFTER_S <= now - since < SILENT_FOR_S

    def __len__(self) -> int:
        return len(self._asked_at)
