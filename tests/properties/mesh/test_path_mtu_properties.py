"""Whatever the path is and loses, the search ends, below the truth, with a bounded number of probes."""

import random

from hypothesis import given
from hypothesis import strategies as st
from path_in_memory import Path

from dhtvpn.mesh.path_mtu import (
    BASE_OUTER,
    ERROR_MTU,
    GRANULARITY,
    IPV4_OVERHEAD,
    IPV6_OVERHEAD,
    MAX_OUTER,
    RAISE_TIMER_S,
    State,
)

OUTER = st.one_of(st.integers(576, MAX_OUTER + 500), st.sampled_from([1280, 1400, 1492, 1500, 9000]))
OVERHEADS = st.sampled_from([IPV4_OVERHEAD, IPV6_OVERHEAD])
MOST_PROBES = 2 * 6 * 20
"""Two datagrams, six rounds at most where answers are lost, and twenty sizes."""


@given(OUTER, OVERHEADS, st.floats(0.0005, 0.9), st.one_of(st.none(), st.integers(1280, 9216)))
def test_converges_below_the_truth(outer: int, overhead: int, rtt_s: float, link: int | None) -> None:
    path = Path(min(outer, link or outer), overhead=overhead, rtt_s=rtt_s, link=link)
    path.run(180)
    truth = min(path.truth, MAX_OUTER - overhead)
    if path.outer < BASE_OUTER:
        assert path.machine.state is State.ERROR and path.machine.mtu == ERROR_MTU
        return
    assert path.machine.state is State.SEARCH_COMPLETE and path.machine.mtu is not None
    assert truth - GRANULARITY < path.machine.mtu <= truth
    assert len(path.sent) <= MOST_PROBES


@given(OUTER, OVERHEADS, st.floats(0, 1), st.integers(0, 2**32))
def test_never_above_the_truth_whatever_is_lost(outer: int, overhead: int, loss: float, seed: int) -> None:
    dice = random.Random(seed)
    path = Path(outer, overhead=overhead, loses=lambda _: dice.random() < loss)
    path.run(RAISE_TIMER_S - 20, traffic=True)
    for _, mtu in path.mtus:
        assert mtu is None or mtu <= path.truth or mtu == ERROR_MTU or mtu == BASE_OUTER - overhead


@given(st.lists(st.tuples(OUTER, st.floats(1, 400), st.booleans()), min_size=1, max_size=6), OVERHEADS)
def test_follows_a_path_that_changes(changes: list[tuple[int, float, bool]], overhead: int) -> None:
    path = Path(changes[0][0], overhead=overhead)
    for outer, duration_s, traffic in changes:
        path.outer = outer
        path.run(duration_s, traffic=traffic)
    path.run(RAISE_TIMER_S + 200, traffic=True)
    if path.outer < BASE_OUTER:
        assert path.machine.state in (State.ERROR, State.BASE)
    else:
        truth = min(path.truth, MAX_OUTER - overhead)
        assert path.machine.mtu is not None and truth - GRANULARITY < path.machine.mtu <= truth
