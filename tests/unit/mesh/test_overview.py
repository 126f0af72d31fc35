"""Who reaches whom, from what members tell."""

from dhtvpn.mesh.overview import MAX_LIKELY_AMONG, Reach, direct_links, likely_ways
from dhtvpn.mesh.routes import RELAY_COST_MS, Links

A, B, C, D = (bytes([number]) * 8 for number in range(1, 5))


def told(origin: bytes, **round_trips_ms: float) -> Links:
    names = {"a": A, "b": B, "c": C, "d": D}
    return Links(origin, 1, {names[name]: value for name, value in round_trips_ms.items()})


def test_a_link_is_one_whoever_tells_it() -> None:
    links = [told(A, b=10.0), told(B, a=12.0, c=5.0)]
    assert direct_links(links) == [Reach(A, B, 10.0), Reach(B, C, 5.0)]
    assert direct_links([told(A, a=1.0)]) == [], "nobody reaches himself"


def test_two_without_a_link_talk_through_the_nearest_whom_both_reach() -> None:
    links = [told(A, c=10.0, d=3.0), told(B, c=1.0, d=4.0)]
    assert likely_ways(links, direct_links(links)) == [Reach(A, B, 7.0 + RELAY_COST_MS, D)]


def test_nothing_is_guessed_of_members_that_tell_nothing() -> None:
    links = [told(A, c=10.0)]
    assert likely_ways(links, direct_links(links)) == []
    linked = [told(A, b=1.0, c=1.0), told(B, c=1.0)]
    assert likely_ways(linked, direct_links(linked)) == [], "one of the two says that there is a link"


def test_a_crowd_is_not_looked_at_pair_by_pair() -> None:
    crowd = [
        Links(number.to_bytes(8, "big"), 1, {A: 1.0})
        for number in range(1 << 60, (1 << 60) + 1 + MAX_LIKELY_AMONG)
    ]
    assert likely_ways(crowd, []) == []
    assert len(likely_ways(crowd[:3], [])) == 3
