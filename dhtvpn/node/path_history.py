"""Remembers, for each peer, which path its packets take, why, and the last changes; tells them as events.

Whoever has changed something calls :meth:`PathHistory.look`, and whoever knows the reason says it before with
:meth:`PathHistory.because`. What a look finds to be as it was is no event.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from dhtvpn.mesh.peers import Occasion, Peer, PeerState
from dhtvpn.node.happenings import Connected, Connecting, Happening, Left, Unreachable, path_happening
from dhtvpn.node.path_facts import KnowsRelays, PathChange, PathFact, Why, likely_reason, path_fact

KEPT_CHANGES: Final = 8
"""Of each peer."""
ROAMING_GAP_S: Final = 1.0
"""Changes of a direct path that follow closer are noted and not told: a peer can bring them about with every
packet of its own."""


@dataclass
class _Known:
    state: PeerState | None = None
    path: PathFact | None = None
    why: Why | None = None
    since: float = 0.0
    pending: Why | None = None
    changes: deque[PathChange] = field(default_factory=lambda: deque(maxlen=KEPT_CHANGES))


class PathHistory:
    """``tell`` is given the events."""

    def __init__(
        self,
        *,
        relays: KnowsRelays,
        tell: Callable[[Happening], None],
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._relays, self._tell, self._unix_time = relays, tell, unix_time
        self._known: WeakKeyDictionary[Peer, _Known] = WeakKeyDictionary()

    def because(self, peer: Peer, why: Why) -> None:
        """The reason for what the next look finds."""
        self._of(peer).pending = why

    def look(self, peer: Peer) -> None:
        """Something about the peer's path may have changed."""
        known = self._of(peer)
        pending, known.pending = known.pending, None
        before_state, known.state = known.state, peer.state
        if peer.state is PeerState.CONNECTED:
            self._connected(peer, known, pending)
            return
        lost, why = known.path, None
        if lost is not None:
            why = pending or Why.SILENT
            self._note(known, None, why)
        if peer.state is before_state:
            return
        if peer.state is PeerState.CONNECTING:
            self._tell(Connecting(peer.name, peer.id, lost, why))
        elif peer.last_occasion is Occasion.GONE:
            self._tell(Left(peer.name, peer.id))
        else:
            self._tell(Unreachable(peer.name, peer.id))

    def changes(self, peer: Peer) -> Sequence[PathChange]:
        """The last ones, the oldest first."""
        return tuple(self._of(peer).changes)

    def reason(self, peer: Peer) -> tuple[Why, float] | None:
        """Why the path in use was chosen, and since when (Unix time); None where nothing was noted of it."""
        known = self._of(peer)
        if known.why is None or peer.path is None or known.path != path_fact(peer.endpoint, self._relays):
            return None
        return known.why, known.since

    def _connected(self, peer: Peer, known: _Known, pending: Why | None) -> None:
        before, after = known.path, path_fact(peer.endpoint, self._relays)
        if before == after:
            return
        why = pending or likely_reason(before, after)
        told_at = known.since
        self._note(known, after, why)
        if before is None:
            address = str(peer.ipv4 or peer.ipv6)
            self._tell(Connected(peer.name, peer.id, address, after, why))
        elif why is not Why.ROAMED or known.since - told_at >= ROAMING_GAP_S:
            self._tell(path_happening(peer, before, after, why))

    def _note(self, known: _Known, after: PathFact | None, why: Why) -> None:
        now = self._unix_time()
        known.changes.append(PathChange(now, known.path, after, why))
        known.path, known.why, known.since = after, why, now

    def _of(self, peer: Peer) -> _Known:
        known = self._known.get(peer)
        if known is None:
            known = self._known[peer] = _Known()
        return known
