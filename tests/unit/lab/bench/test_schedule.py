"""Interleaved, each round in another order, and only what was asked for."""

import pytest

from dhtvpn.errors import UsageError
from dhtvpn.lab.bench import schedule
from dhtvpn.lab.bench.run import PER_TUNNEL

TUNNELS = ["none", "a", "b"]


def test_every_tunnel_has_every_measurement_in_every_round() -> None:
    measures = schedule.chosen([], quick=False)
    planned = schedule.steps(3, measures, TUNNELS)
    taken = [(step.round, step.measure.name, step.tunnel) for step in planned]
    assert len(taken) == len(set(taken))
    for number in (1, 2, 3):
        for measure in measures:
            expected = {None} if measure.together else set(TUNNELS)
            assert {
                who for round_, name, who in taken if (round_, name) == (number, measure.name)
            } == expected


def test_tunnels_take_turns_and_each_round_starts_with_another() -> None:
    (tcp,) = schedule.chosen(["tcp"], quick=False)
    planned = [(step.round, step.tunnel) for step in schedule.steps(4, [tcp], TUNNELS)]
    assert planned[:6] == [(1, "none"), (1, "a"), (1, "b"), (2, "a"), (2, "b"), (2, "none")]
    assert planned[9] == (4, "none")


def test_without_tunnels_nothing_is_planned_for_one() -> None:
    assert schedule.steps(2, schedule.chosen(["tcp", "udp"], quick=False), []) == []


def test_quick_leaves_out_what_it_says_and_names_bring_it_back() -> None:
    quick = [measure.name for measure in schedule.chosen([], quick=True)]
    full = [measure.name for measure in schedule.chosen([], quick=False)]
    assert [name for name in full if name not in quick] == ["tcp4", "both"]
    assert [measure.name for measure in schedule.chosen(["idle", "tcp4"], quick=True)] == ["tcp4", "idle"]


def test_an_unknown_measurement_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no measurement 'tpc': choose from tcp, tcp4"):
        schedule.chosen(["tcp", "tpc"], quick=False)


def test_everything_on_the_schedule_can_be_taken() -> None:
    assert {measure.name for measure in schedule.MEASURES if not measure.together} == set(PER_TUNNEL)
