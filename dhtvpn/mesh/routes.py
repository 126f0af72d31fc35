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

    def __len__(self) -> int:
        return len(self._links)

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
    tails = _tails(destination, own, states)
    found = []
    for neighbour, round_trip_ms in neighbours.items():
        tail = tails.get(neighbour)
        if tail is not None:
            cost_ms, relays = tail
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


def _tails(
    destination: bytes, own: bytes, states: LinkStates
) -> dict[bytes, tuple[float, tuple[bytes, ...]]]:
    """From each member that reaches ``destination``: the cost of its shortest way there, and the members
    between, at most MAX_RELAYS - 1 and never ``own``.

    Bellman and Ford from the far end, one round for each relay: one search serves all our neighbours. No way
    meets a member twice, for the rest of it from there would be shorter.
    """
    told = [links for links in states.all() if links.origin not in (own, destination)]
    tails: dict[bytes, tuple[float, tuple[bytes, ...]]] = {
        links.origin: (links.round_trips_ms[destination], ())
        for links in told
        if destination in links.round_trips_ms
    }
    for _ in range(MAX_RELAYS - 1):
        least_ms = RELAY_COST_MS + min((cost_ms for cost_ms, _ in tails.values()), default=0.0)
        before = dict(tails)
        for links in told:
            known = before.get(links.origin)
            if known is not None and known[0] <= least_ms:
                continue  # in a full mesh most ways are as short as any detour could be
            best = known
            for neighbour, round_trip_ms in links.round_trips_ms.items():
                further = before.get(neighbour)
                if further is not None:
                    cost_ms = round_trip_ms + RELAY_COST_MS + further[0]
                    if best is None or cost_ms < best[0]:
                        best = (cost_ms, (neighbour, *further[1]))
            if best is not None:
                tails[links.origin] = best
    return tails
