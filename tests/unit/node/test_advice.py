"""What would make a path direct: every case, and nothing where it would not help."""

from dataclasses import replace

import pytest

from dhtvpn.node.advice import STALE_RECORD_S, Asked, Code, Side, Situation, advice
from dhtvpn.records.record import NatBehaviour, PublishedFiltering, PublishedMapping

OPEN = NatBehaviour(PublishedMapping.NONE)
EASY = NatBehaviour(PublishedMapping.ENDPOINT_INDEPENDENT, PublishedFiltering.NOT_BY_PORT)
RESTRICTED = NatBehaviour(PublishedMapping.ENDPOINT_INDEPENDENT, PublishedFiltering.BY_PORT)
SYMMETRIC = NatBehaviour(PublishedMapping.DEPENDENT, PublishedFiltering.BY_PORT)
UNKNOWN = NatBehaviour()


def situation(own: NatBehaviour, peer: NatBehaviour, **changes: object) -> Situation:
    """A relayed peer, of which everything is known."""
    plain = Situation(
        own=Side("desk", own, ipv6=False, mapped=False, port=4690),
        peer=Side("laptop", peer, ipv6=False, mapped=False, port=4691),
        direct=False,
        connected=True,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def codes(case: Situation) -> list[Code]:
    return [each.code for each in advice(case)]


def text_of(case: Situation, code: Code) -> str:
    return next(each.text for each in advice(case) if each.code is code)


MAPPINGS = [Code.PORT_MAPPING, Code.FORWARD_PORT, Code.IPV6]


@pytest.mark.parametrize(
    ("own", "peer", "expected"),
    [
        (SYMMETRIC, SYMMETRIC, MAPPINGS),
        (SYMMETRIC, RESTRICTED, MAPPINGS),
        (RESTRICTED, SYMMETRIC, MAPPINGS),
        (SYMMETRIC, EASY, [Code.FIREWALL]),
        (RESTRICTED, RESTRICTED, [Code.FIREWALL]),
        (OPEN, SYMMETRIC, [Code.FIREWALL]),
        (OPEN, OPEN, [Code.FIREWALL]),
        (UNKNOWN, SYMMETRIC, [Code.NAT_UNKNOWN, Code.IPV6]),
        (UNKNOWN, UNKNOWN, [Code.NAT_UNKNOWN, Code.IPV6]),
        (RESTRICTED, UNKNOWN, [Code.NAT_UNKNOWN, Code.IPV6]),
    ],
)
def test_each_pair_of_nats(own: NatBehaviour, peer: NatBehaviour, expected: list[Code]) -> None:
    assert codes(situation(own, peer)) == expected


def test_symmetric_against_symmetric_names_both_routers_and_ports() -> None:
    case = situation(SYMMETRIC, SYMMETRIC)
    assert "router of desk or of laptop" in text_of(case, Code.PORT_MAPPING)
    assert "PCP, NAT-PMP or UPnP" in text_of(case, Code.PORT_MAPPING)
    assert "port 4690 to desk; port 4691 to laptop" in text_of(case, Code.FORWARD_PORT)
    unknown_port = replace(case, peer=replace(case.peer, port=None))
    assert "the port of dhtvpn to laptop" in text_of(unknown_port, Code.FORWARD_PORT)


def test_behind_a_second_nat_only_the_other_router_helps() -> None:
    case = situation(SYMMETRIC, RESTRICTED)
    in_vain = replace(case, own=replace(case.own, asked=Asked.IN_VAIN))
    assert "Another NAT" in text_of(in_vain, Code.PORT_MAPPING)
    assert text_of(in_vain, Code.PORT_MAPPING).endswith("in the router of laptop")
    assert text_of(in_vain, Code.FORWARD_PORT).endswith("by hand in it: port 4691 to laptop")
    not_asked = replace(case, own=replace(case.own, asked=Asked.NOT_ASKED))
    assert "without --no-port-mapping here" in text_of(not_asked, Code.PORT_MAPPING)


def test_a_port_mapping_that_is_there_makes_it_a_matter_of_firewalls() -> None:
    case = situation(SYMMETRIC, SYMMETRIC)
    for side in ("own", "peer"):
        mapped = replace(case, **{side: replace(getattr(case, side), mapped=True)})  # type: ignore[arg-type]
        assert codes(mapped) == [Code.FIREWALL]


def test_ipv6_where_one_side_lacks_it_and_where_none_does() -> None:
    case = situation(SYMMETRIC, SYMMETRIC)
    both = replace(case, own=replace(case.own, ipv6=True), peer=replace(case.peer, ipv6=True))
    one = replace(case, own=replace(case.own, ipv6=True))
    assert "turn it on at laptop" in text_of(one, Code.IPV6)
    assert "turn it on at desk and laptop" in text_of(case, Code.IPV6)
    assert codes(both)[-1] is Code.IPV6_FIREWALL


def test_a_firewall_here_comes_first_and_nothing_is_guessed_beyond() -> None:
    case = situation(SYMMETRIC, SYMMETRIC, answered=False, connected=False, relays=False)
    assert codes(case) == [Code.NO_UDP, Code.NO_RELAY]
    assert "from port 4690" in text_of(case, Code.NO_UDP)


def test_records() -> None:
    stale = situation(RESTRICTED, RESTRICTED, record_age_s=STALE_RECORD_S + 3600)
    assert codes(stale) == [Code.STALE_RECORD, Code.FIREWALL]
    assert "3 h old" in text_of(stale, Code.STALE_RECORD)
    assert codes(situation(RESTRICTED, UNKNOWN, record_age_s=None)) == [Code.NO_RECORD]


def test_a_clock_that_is_wrong() -> None:
    case = situation(RESTRICTED, UNKNOWN, record_age_s=None, clock_apart_s=-3600.0)
    assert codes(case) == [Code.CLOCK, Code.NO_RECORD]
    assert "60 min wrong" in text_of(case, Code.CLOCK)


def test_no_relay_is_said_only_where_there_is_no_path() -> None:
    alone = situation(SYMMETRIC, SYMMETRIC, connected=False, relays=False)
    assert codes(alone) == [*MAPPINGS, Code.NO_RELAY]
    assert "bootstrap --relay" in text_of(alone, Code.NO_RELAY)
    assert codes(replace(alone, connected=True)) == MAPPINGS
    assert codes(replace(alone, relays=True)) == MAPPINGS


def test_the_budget_is_named_where_it_is_used_up() -> None:
    assert codes(situation(EASY, EASY, budget_used_up=True)) == [Code.FIREWALL, Code.BUDGET]


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"stock": True}, Code.STOCK), ({"left": True}, Code.LEFT), ({"checking": True}, Code.CHECKING)],
)
def test_what_makes_all_else_moot(changes: dict[str, bool], code: Code) -> None:
    assert codes(situation(SYMMETRIC, SYMMETRIC, **changes, connected=False, relays=False)) == [code]


def test_a_direct_path_needs_no_advice() -> None:
    assert codes(situation(SYMMETRIC, SYMMETRIC, direct=True, answered=False)) == []
