"""Ways through members, whatever anybody says: short, simple, and steady."""

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.mesh.routes import MAX_RELAYS, RELAY_COST_MS, Links, LinkStates, Route, choose, routes_to

KEYS = st.integers(0, 9).map(lambda number: bytes([number]) * 8)
ROUND_TRIPS = st.floats(0, 6000, allow_nan=False)
GRAPHS = st.dictionaries(KEYS, st.dictionaries(KEYS, ROUND_TRIPS, max_size=9), max_size=10)
OWN, FAR = bytes(8), bytes([9]) * 8


def states_of(graph: dict[bytes, dict[bytes, float]]) -> LinkStates:
    states = LinkStates()
    for origin, round_trips in graph.items():
        assert states.offer(Links(origin, 1, round_trips), 0.0)
    return states


def ways(
    node: bytes, seen: tuple[bytes, ...], cost: float, graph: dict[bytes, dict[bytes, float]]
) -> list[tuple[float, tuple[bytes, ...]]]:
    """Every simple way from ``node`` to FAR, by brute force."""
    found = []
    for neighbour, round_trip in graph.get(node, {}).items():
        if neighbour == FAR:
            found.append((cost + round_trip, seen))
        elif neighbour not in (*seen, OWN) and len(seen) < MAX_RELAYS:
            found += ways(neighbour, (*seen, neighbour), cost + round_trip + RELAY_COST_MS, graph)
    return found


@given(GRAPHS, st.dictionaries(KEYS, ROUND_TRIPS, max_size=9))
def test_every_route_is_simple_bounded_and_made_of_links(
    graph: dict[bytes, dict[bytes, float]], neighbours: dict[bytes, float]
) -> None:
    routes = routes_to(FAR, OWN, neighbours, states_of(graph))
    for route in routes:
        assert 1 <= len(route.relays) <= MAX_RELAYS
        assert len({OWN, FAR, *route.relays}) == len(route.relays) + 2
        assert route.relays[0] in neighbours
        for here, there in zip(route.relays, (*route.relays[1:], FAR), strict=True):
            assert there in graph[here]
    assert [route.cost_ms for route in routes] == sorted(route.cost_ms for route in routes)
    assert len({route.relays[0] for route in routes}) == len(routes)


@given(GRAPHS, st.dictionaries(KEYS, ROUND_TRIPS, max_size=9))
def test_the_first_route_is_the_shortest_there_is(
    graph: dict[bytes, dict[bytes, float]], neighbours: dict[bytes, float]
) -> None:
    routes = routes_to(FAR, OWN, neighbours, states_of(graph))
    best = [
        way
        for first, round_trip in neighbours.items()
        if first not in (OWN, FAR)
        for way in ways(first, (first,), round_trip + RELAY_COST_MS, graph)
    ]
    assert bool(best) == bool(routes)
    if best:
        assert abs(min(best)[0] - routes[0].cost_ms) < 1e-6


ROUTES = st.lists(
    st.builds(Route, st.tuples(KEYS), st.floats(1, 1000)), max_size=6, unique_by=lambda route: route.relays
).map(lambda routes: sorted(routes, key=lambda route: route.cost_ms))


@given(ROUTES, st.one_of(st.none(), st.tuples(KEYS)))
def test_a_choice_is_steady(routes: list[Route], in_use: tuple[bytes, ...] | None) -> None:
    chosen = choose(routes, in_use)
    assert (chosen is None) == (not routes)
    if chosen is not None:
        assert choose(routes, chosen.relays) is chosen
        shaken = sorted(
            (Route(route.relays, route.cost_ms * 0.95) for route in routes if route is not chosen),
            key=lambda route: route.cost_ms,
        )
        again = sorted([chosen, *shaken], key=lambda route: route.cost_ms)
        if chosen is routes[0]:
            assert choose(again, chosen.relays) is chosen


@given(st.lists(st.tuples(KEYS, st.integers(0, 5), st.integers(0, 5)), max_size=60))
def test_what_is_known_of_a_member_never_gets_older(said: list[tuple[bytes, int, int]]) -> None:
    states = LinkStates()
    newest: dict[bytes, int] = {}
    for origin, sequence, hops in said:
        news = states.offer(Links(origin, sequence, {}, hops), 0.0)
        assert news == (hops <= 2 and sequence > newest.get(origin, -1))
        if news:
            newest[origin] = sequence
    assert {links.origin: links.sequence for links in states.all()} == newest
    states.expire(1e6)
    assert not states.all()
