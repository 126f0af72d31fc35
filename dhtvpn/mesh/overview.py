"""Who reaches whom, as far as one member has been told: direct links, and likely ways of the others. Pure.

Members that relay tell their links (``routes``). Two that both tell, and do not name each other, talk through
somebody whom both name: whom exactly is theirs to know, the nearest is likely.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dhtvpn.mesh.routes import RELAY_COST_MS, Links

MAX_LIKELY_AMONG: Final = 128
"""Members among which likely ways are looked for, ours: the work grows with the third power of it."""


@dataclass(frozen=True)
class Reach:
    """Two members, the smaller key first. ``through`` is None for a direct link, else the member between."""

    one: bytes
    other: bytes
    round_trip_ms: float | None
    through: bytes | None = None


def direct_links(told: Iterable[Links]) -> list[Reach]:
    """Every link that at least one end has told, with the shorter of the round trips told, in order."""
    found: dict[tuple[bytes, bytes], float] = {}
    for links in told:
        for neighbour, round_trip_ms in links.round_trips_ms.items():
            if neighbour != links.origin:
                ends = min(links.origin, neighbour), max(links.origin, neighbour)
                found[ends] = min(round_trip_ms, found.get(ends, round_trip_ms))
    return [Reach(one, other, round_trip_ms) for (one, other), round_trip_ms in sorted(found.items())]


def likely_ways(told: Iterable[Links], direct: Iterable[Reach]) -> list[Reach]:
    """Between members that both tell and have no direct link: through whom the way is shortest."""
    by_origin = {links.origin: links.round_trips_ms for links in told}
    if len(by_origin) > MAX_LIKELY_AMONG:
        return []
    linked = {(reach.one, reach.other) for reach in direct}
    origins = sorted(by_origin)
    found = []
    for position, one in enumerate(origins):
        for other in origins[position + 1 :]:
            if (one, other) not in linked:
                found += _shortest(one, other, by_origin)
    return found


def _shortest(one: bytes, other: bytes, links: Mapping[bytes, Mapping[bytes, float]]) -> list[Reach]:
    common = links[one].keys() & links[other].keys()
    costs = [(links[one][key] + links[other][key] + RELAY_COST_MS, key) for key in common]
    if not costs:
        return []
    cost_ms, through = min(costs)
    return [Reach(one, other, cost_ms, through)]
