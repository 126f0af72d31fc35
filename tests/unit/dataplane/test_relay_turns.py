"""The share of the engine's time that relaying gets beside own traffic."""

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.dataplane.relay_turns import BURST_S, LINGER_S, OPENING, OWN_OCTETS, SHARE, SMALL, RelayTurns

WORK_S = 0.0002
RUN = 60_000


def relayed_s(turns: RelayTurns, began: float, seconds: float, own_octets: int = 0) -> float:
    """Seconds of work on what wants to be relayed all the time, opening included."""
    now, worked = began, 0.0
    while now < began + seconds:
        turns.own(own_octets, now)
        if turns.allowed(RUN, now):
            turns.worked(WORK_S)
            worked += OPENING * WORK_S
        now += OPENING * WORK_S
    return worked


def test_without_own_traffic_all_time_may_go_to_relaying() -> None:
    assert relayed_s(RelayTurns(), 1.0, 2.0) > 1.99


def test_pings_and_little_traffic_need_no_protection() -> None:
    assert relayed_s(RelayTurns(), 1.0, 2.0, own_octets=50) > 1.99


def test_beside_own_traffic_it_gets_its_share_and_afterwards_all() -> None:
    turns = RelayTurns()
    turns.own(OWN_OCTETS, 1.0)
    share = relayed_s(turns, 1.0, 2.0, own_octets=4000) / 2.0
    assert SHARE * 0.95 <= share <= SHARE + BURST_S
    assert relayed_s(turns, 3.0 + LINGER_S, 1.0) > 0.95


def test_what_is_relayed_is_no_own_traffic() -> None:
    turns, now = RelayTurns(), 1.0
    for number in range(1000):
        now = 1.0 + number * 0.001
        turns.own(-OWN_OCTETS, now)
        turns.own(OWN_OCTETS + 50, now)
    assert turns.allowed(RUN, now)
    turns.worked(1.0)
    assert turns.allowed(RUN, now)
    turns.own(OWN_OCTETS, now)
    assert not turns.allowed(RUN, now) and turns.allowed(SMALL, now)


@given(st.lists(st.tuples(st.integers(-100_000, 100_000), st.floats(0, 5), st.floats(0, 5)), max_size=50))
def test_relaying_is_never_shut_out_for_long(steps: list[tuple[int, float, float]]) -> None:
    turns, now = RelayTurns(), 1.0
    for octets, gap_s, work_s in steps:
        now += gap_s
        turns.own(octets, now)
        turns.worked(work_s)
    turns.allowed(RUN, now)
    assert turns.allowed(RUN, now + BURST_S / SHARE + 0.001)
