"""Routes through members: who says that it reaches whom, and the shortest way by measured round trips. Pure.

Every member that relays tells its *links*: the members that it reaches directly, and the round trip to each.
What it says goes on to members that it does not reach itself, FLOOD_HOPS times at most. From the links each
node computes its own ways; the sender names every member on the way (``relay_wire``), so ways of different
nodes need not agree, and none can go in a circle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_RELAYS: Final = 3
"""Members between the two ends, at most."""
FLOOD_HOPS: Final = 2
"""How often links are passed on: the third relay on a way is known by then."""
RELAY_COST_MS: Final = 2.0
"""What each relay adds to a way, ours: of two equal ways the one with fewer relays is better."""
KEEP_SHARE, KEEP_MS = 0.8, 5.0
"""A way in use is left for one that takes less than this share of its time, and at least so much less."""
LIFETIME_S: Final = 900.0
"""What was said longer ago is forgotten; it is repeated three times in that time."""
MAX_ORIGINS: Final = 1024
MAX_LINKS: Final = 64
"""Of one origin."""


@dataclass(frozen=True)
class Links:
    """What one member says. Keys are the members' node keys, shortened to KEY_SIZE bytes."""

    origin: bytes
    sequence: int
    round_trips_ms: Mapping[bytes, float]
    hops: int = 0
    """How often it was passed on."""


@dataclass(frozen=True)
class Route:
    """A way: the members between us and the destination, the nearest first, and its computed round trip."""

    relays: tuple[bytes, ...]
    cost_ms: float


class LinkStates:
    """The newest links of every origin."""

    def __init__(self) -> None:
        self._links: dict[bytes, tuple[Links, float]] = {}

    def offer(self, links: Links, now: float) -> bool:
        """Take ``links``, unless something newer of the same origin, or too much, is known. Whether they are
        news."""
        known = self._links.get(links.origin)
        if len(links.round_trips_ms) > MAX_LINKS or links.hops > FLOOD_HOPS:
            return False
        if known is None and len(self._links) >= MAX_ORIGINS:
            return False
        if known is not None and known[0].sequence >= links.sequence:
            return False
        self._links[links.origin] = links, now
        return True

    def forget(self, origin: bytes) -> None:
        """The member is gone, or does not relay any more."""
        self._links.pop(origin, None)

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        old = [origin for origin, (_, since) in self._links.items() if now - since > LIFETIME_S]
        for origin in old:
            del self._links[origin]

    def of(self, origin: bytes) -> Links | None:
        """What ``origin`` says."""
        known = self._links.get(origin)
        return None if known is None else known[0]

    def all(self) -> list[Links]:
        return [links for links, _ in self._links.values()]


def routes_to(
    destination: bytes, own: bytes, neighbours: Mapping[bytes, float], states: LinkStates
) -> list[Route]:
    """The shortest way to ``destination`` through each of our ``neighbours`` (their round trips in ms) that
    has one, the best first."""
    found = []
    for neighbour, round_trip_ms in neighbours.items():
        if neighbour in (destination, own):
            continue
        tail = _shortest(neighbour, destination, frozenset((own,)), MAX_RELAYS - 1, states)
        if tail is not None:
            relays, cost_ms = tail
            found.append(Route((neighbour, *relays), round_trip_ms + RELAY_COST_MS + cost_ms))
    return sorted(found, key=lambda route: (route.cost_ms, route.relays))


def choose(routes: list[Route], in_use: tuple[bytes, ...] | None) -> Route | None:
    """The best of ``routes`` (in their order), or the one ``in_use`` while none is much better."""
    if not routes:
        return None
    best = routes[0]
    kept = next((route for route in routes if route.relays == in_use), None)
    if kept is not None and best.cost_ms > min(KEEP_SHARE * kept.cost_ms, kept.cost_ms - KEEP_MS):
        return kept
    return best


def _shortest(
    start: bytes, destination: bytes, closed: frozenset[bytes], relays_left: int, states: LinkStates
) -> tuple[tuple[bytes, ...], float] | None:
    """The members between ``start`` and ``destination`` on the shortest way with at most ``relays_left`` of
    them, none in ``closed``, and its cost; by rounds of Bellman and Ford, one for each relay."""
    reached: dict[bytes, tuple[float, tuple[bytes, ...]]] = {start: (0.0, ())}
    best: tuple[float, tuple[bytes, ...]] | None = None
    frontier = dict(reached)
    for _ in range(relays_left + 1):
        following: dict[bytes, tuple[float, tuple[bytes, ...]]] = {}
        for node, (cost_ms, path) in frontier.items():
            links = states.of(node)
            if links is None:
                continue
            for neighbour, round_trip_ms in links.round_trips_ms.items():
                total = cost_ms + round_trip_ms
                if neighbour == destination:
                    best = min(best or (total, path), (total, path))
                    continue
                extended = (total + RELAY_COST_MS, (*path, neighbour))
                if neighbour in closed or neighbour == start or neighbour in path:
                    continue
                if neighbour not in reached or extended < reached[neighbour]:
                    reached[neighbour] = following[neighbour] = extended
        frontier = following
    return None if best is None else (best[1], best[0])
