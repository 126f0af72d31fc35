"""RFC 8899 in virtual time: what the machine finds, how fast, and when it notices a change."""

import random

import pytest
from path_in_memory import Path

from dhtvpn.mesh.path_mtu import (
    CONFIRM_S,
    ERROR_MTU,
    ERROR_RETRY_S,
    GRANULARITY,
    IPV4_OVERHEAD,
    IPV6_OVERHEAD,
    LIKELY_OUTER,
    RAISE_TIMER_S,
    State,
)

OVERHEADS = pytest.mark.parametrize("overhead", [IPV4_OVERHEAD, IPV6_OVERHEAD])


@OVERHEADS
@pytest.mark.parametrize("outer", [*LIKELY_OUTER, 1280])
def test_likely_sizes_are_found_exactly(outer: int, overhead: int) -> None:
    path = Path(outer, overhead=overhead)
    assert path.machine.mtu is None
    path.run_until_searched()
    assert path.machine.mtu == outer - overhead


def test_the_ordinary_path_takes_three_round_trips() -> None:
    """Base, 9,000 refused by the own link, 1,500, and one byte group more refused again."""
    path = Path(1500, link=1500)
    assert path.run_until_searched() < 3 * path.rtt_s
    assert [size for _, size in path.sent] == [1220, 16, 8940, 16, 1440, 16, 1448, 16]


def test_nothing_below_the_default_is_used_while_the_first_search_lasts() -> None:
    path = Path(1400)
    path.run_until_searched()
    assert [mtu for _, mtu in path.mtus] == [None, 1340]
    path = Path(9000)
    path.run_until_searched()
    assert [mtu for _, mtu in path.mtus] == [None, 8940]


def test_a_router_on_the_way_costs_a_second() -> None:
    path = Path(1492, link=1500)
    assert path.run_until_searched() < 1.5
    path = Path(1500, link=9000)
    assert path.run_until_searched() < 1.5


@pytest.mark.parametrize("outer", [*range(1281, 1530, 13), 2304, 4352, 8999, 9001, 9216, 20000])
def test_any_size_between_is_found_closely(outer: int) -> None:
    path = Path(outer)
    path.run_until_searched()
    truth = min(path.truth, 9216 - IPV4_OVERHEAD)
    assert path.machine.mtu is not None
    assert truth - GRANULARITY < path.machine.mtu <= truth


def test_it_is_found_although_probes_are_lost() -> None:
    for seed in range(20):
        dice = random.Random(seed)
        path = Path(1492, loses=lambda _, dice=dice: dice.random() < 0.1, seed=seed)  # type: ignore[misc]
        path.run_until_searched()
        assert path.machine.mtu is not None and path.machine.mtu <= path.truth
        path.run(2 * RAISE_TIMER_S)
        path.run(10, traffic=True)
        assert path.machine.mtu == path.truth


def test_a_slow_path_is_not_a_narrow_one() -> None:
    path = Path(1500, rtt_s=1.3)
    path.run_until_searched()
    assert path.machine.mtu == 1440


def test_a_peer_that_knows_no_probes_is_left_in_peace() -> None:
    path = Path(1500, answers=False)
    path.run(RAISE_TIMER_S - 10, traffic=True)
    assert path.machine.state is State.DISABLED and path.machine.mtu is None
    assert len(path.sent) == 6
    path.answers = True  # it was brought up to date
    path.run(20)
    assert path.machine.mtu == 1440


def test_a_path_below_the_base_is_an_error_until_it_is_wider() -> None:
    path = Path(1000)
    path.run(5)
    assert path.machine.state is State.ERROR and path.machine.mtu == ERROR_MTU
    path.outer = 1400
    path.run(ERROR_RETRY_S + 5)
    assert path.machine.mtu == 1340


@pytest.mark.parametrize(("before", "after"), [(1500, 1280), (9000, 1500), (1500, 1400), (1500, 1301)])
def test_a_path_that_shrinks_under_traffic_is_noticed(before: int, after: int) -> None:
    path = Path(before)
    path.run_until_searched()
    path.run(10.3, traffic=True)
    path.outer = after
    began = path.now
    path.run(CONFIRM_S + 1, traffic=True)
    lowered = next(at for at, mtu in path.mtus if at > began and mtu is not None and mtu <= path.truth)
    assert lowered - began < CONFIRM_S + 0.7
    path.run(30, traffic=True)
    assert path.machine.mtu is not None
    assert path.truth - GRANULARITY < path.machine.mtu <= path.truth


def test_an_idle_path_is_left_in_peace() -> None:
    path = Path(1500)
    path.run_until_searched()
    count = len(path.sent)
    path.run(3 * RAISE_TIMER_S)
    assert len(path.sent) == count


def test_pings_and_new_keys_of_an_idle_path_are_no_use_of_it() -> None:
    path = Path(1500)
    path.run_until_searched()
    count = len(path.sent)
    for _ in range(60):
        for octets in (200, 56, 56):  # a Hello and a keepalive with new keys; pings
            path.packets(octets)
            path.run(20)
    assert len(path.sent) == count
    path.packets(1400)
    path.run(1)
    assert len(path.sent) > count, "one packet of full size is use"


def test_a_path_that_widened_while_it_was_idle_is_used_with_the_first_packets() -> None:
    path = Path(1280)
    path.run_until_searched()
    path.run(RAISE_TIMER_S + 100)
    path.outer = 1500
    path.run(2, traffic=True)
    assert path.machine.mtu == path.truth


def test_a_path_in_use_is_confirmed_with_little() -> None:
    path = Path(1500)
    path.run_until_searched()
    count = len(path.sent)
    path.run(100, traffic=True)
    assert 40 <= (len(path.sent) - count) / 2 <= 50


def test_probes_do_not_count_as_use() -> None:
    path = Path(1500)
    path.run_until_searched()
    path.run(10, traffic=True)
    count = len(path.sent)
    for _ in range(400):
        path.machine.packets_sent(path._traffic + path._own, path.now)
        path.run(0.25)
    assert len(path.sent) - count <= 2


def test_answers_to_the_probes_of_the_peer_do_not_count_as_use() -> None:
    path = Path(1500)
    path.run_until_searched()
    count = len(path.sent)
    for _ in range(40):  # as many as the peer's own search takes
        path.machine.answers()
        path.packets(48)
        path.run(0.02)
    path.run(2 * RAISE_TIMER_S)
    assert len(path.sent) == count


def test_the_first_packets_after_a_pause_are_confirmed_at_once() -> None:
    path = Path(1500)
    path.run_until_searched()
    path.run(100)
    path.outer = 1280
    began = path.now
    path.run(1, traffic=True)
    assert path.machine.mtu is not None and path.machine.mtu <= path.truth
    assert path.mtus[-1][0] - began < 1


def test_a_path_that_widens_is_used_after_the_raise_timer() -> None:
    path = Path(1280)
    path.run_until_searched()
    path.outer = 9000
    path.run(RAISE_TIMER_S - 10, traffic=True)
    assert path.machine.mtu == 1220
    path.run(20, traffic=True)
    assert path.machine.mtu == 8940


def test_a_path_that_is_down_says_nothing_of_size() -> None:
    path = Path(1500)
    path.run_until_searched()
    path.loses = lambda _: True
    path.run(60, traffic=True)
    assert path.machine.mtu == 1440
    path.loses = lambda _: False
    path.run(10, traffic=True)
    assert path.machine.mtu == 1440 and path.machine.state is State.SEARCH_COMPLETE


def test_a_new_path_is_measured_anew() -> None:
    path = Path(1500)
    path.run_until_searched()
    path.overhead = IPV6_OVERHEAD
    path.machine.restart(IPV6_OVERHEAD, path.now)
    assert path.machine.mtu is None
    path.run_until_searched()
    assert path.machine.mtu == 1420


def test_a_link_of_our_own_that_shrinks_is_noticed() -> None:
    path = Path(9000, link=9000)
    path.run_until_searched()
    path.outer = path.link = 1500
    path.run(CONFIRM_S + 1, traffic=True)
    assert path.machine.mtu == 1440


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    path = Path(1500)
    path.machine.acknowledged(bytes(8), path.now)
    path.machine.refused(9999, path.now)
    path.run_until_searched()
    (token,) = {bytes(8)}
    path.machine.acknowledged(token, path.now)
    assert path.machine.mtu == 1440


def test_a_new_engine_counts_from_zero() -> None:
    path = Path(1500)
    path.run_until_searched()
    path.run(10, traffic=True)
    path._traffic = path._own = 0
    count = len(path.sent)
    path.run(10, traffic=True)
    assert len(path.sent) > count
