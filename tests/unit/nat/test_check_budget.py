"""A victim gets a handful of checks; a peer that answers, and one that comes late, get what they need."""

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import check_budget as module
from dhtvpn.nat.check_budget import CheckBudget

PEER = Endpoint("198.18.5.5", 777)


def sent(budget: CheckBudget, endpoints: list[Endpoint], seconds: float) -> int:
    """Everybody asks ten times a second for each endpoint."""
    moments = [1000.0 + tenth / 10 for tenth in range(int(seconds * 10))]
    return sum(budget.take(endpoint, now) for now in moments for endpoint in endpoints)


def test_a_victim_at_one_endpoint() -> None:
    assert sent(CheckBudget(), [PEER], 10) <= 11
    assert sent(CheckBudget(), [PEER], 3600) <= 10 + 360


def test_a_record_full_of_one_victims_ports() -> None:
    ports = [Endpoint(PEER.host, port) for port in range(1, 101)]
    assert sent(CheckBudget(), ports, 10) <= 25


def test_a_network_of_one_attacker_is_one_site() -> None:
    hosts = [Endpoint(f"2001:db8::{number:x}", 777) for number in range(1, 101)]
    assert sent(CheckBudget(), hosts, 10) <= 25


def test_all_together_have_a_limit() -> None:
    many = [Endpoint(f"198.18.{number >> 8}.{number & 255}", 777) for number in range(2000)]
    budget = CheckBudget()
    assert sum(budget.take(endpoint, 1000.0) for endpoint in many) == module.TOTAL_BURST
    assert len(budget) <= module.MAX_REMEMBERED


def test_an_answer_lifts_the_limit_for_a_while() -> None:
    budget = CheckBudget()
    while budget.take(PEER, 1000.0):
        pass
    budget.answered(PEER, 1000.0)
    assert all(budget.take(PEER, 1000.0 + number) for number in range(100))
    later = 1000.0 + module.PROVEN_S + 1
    assert sum(budget.take(PEER, later) for _ in range(100)) <= module.ENDPOINT_BURST


def test_a_late_peers_own_check_is_answered_by_one_of_ours() -> None:
    budget = CheckBudget()
    while budget.take(PEER, 1000.0):
        pass
    assert [budget.take(PEER, 1000.0, triggered=True) for _ in range(6)] == [True] * 4 + [False] * 2


def test_no_more_is_remembered_than_a_network_has() -> None:
    budget = CheckBudget()
    for number in range(2 * module.MAX_REMEMBERED):
        budget.take(Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1), 1000.0)
    assert len(budget) == module.MAX_REMEMBERED
