"""Which pairs of NATs leave room for a direct path."""

from itertools import product

import pytest

from dhtvpn.errors import UsageError
from dhtvpn.lab.nat_behaviour import (
    ADDRESS_RESTRICTED,
    CARRIER,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Allocation,
    Filtering,
    Mapping,
    Nat,
    can_be_direct,
)

BY_ADDRESS = Nat(Mapping.ADDRESS_DEPENDENT, allocation=Allocation.RANDOM)
BY_ADDRESS_OPEN = Nat(Mapping.ADDRESS_DEPENDENT, Filtering.ENDPOINT_INDEPENDENT, Allocation.RANDOM)
SYMMETRIC_OPEN = Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ENDPOINT_INDEPENDENT, Allocation.RANDOM)
TABLE = {
    # As measured between real kernel NATs: the four kinds that people know, and no NAT at all.
    OPEN_FILTERING: {OPEN_FILTERING: True, ADDRESS_RESTRICTED: True, PORT_RESTRICTED: True, SYMMETRIC: True},
    ADDRESS_RESTRICTED: {ADDRESS_RESTRICTED: True, PORT_RESTRICTED: True, SYMMETRIC: True},
    PORT_RESTRICTED: {PORT_RESTRICTED: True, SYMMETRIC: False},
    SYMMETRIC: {SYMMETRIC: False},
}


@pytest.mark.parametrize(
    ("one", "other", "direct"),
    [(one, other, direct) for one, row in TABLE.items() for other, direct in row.items()],
    ids=str,
)
def test_the_known_table(one: Nat, other: Nat, direct: bool) -> None:
    assert can_be_direct([one], [other]) is direct
    assert can_be_direct([other], [one]) is direct


def test_a_public_host_is_reached_from_everywhere() -> None:
    for nat in (*TABLE, BY_ADDRESS, BY_ADDRESS_OPEN, SYMMETRIC_OPEN, CARRIER):
        assert can_be_direct([], [nat])
        assert can_be_direct([nat], [])
        assert can_be_direct([nat, CARRIER], [])
    assert can_be_direct([], [])


def test_dependence_on_the_address_alone_is_as_bad_as_on_the_port_too() -> None:
    for other in TABLE:
        assert can_be_direct([BY_ADDRESS], [other]) is can_be_direct([SYMMETRIC], [other])


def test_loose_filtering_helps_a_dependent_mapping_only_where_the_answer_finds_back() -> None:
    assert can_be_direct([BY_ADDRESS_OPEN], [BY_ADDRESS_OPEN])
    assert can_be_direct([BY_ADDRESS_OPEN], [SYMMETRIC_OPEN])
    assert not can_be_direct([SYMMETRIC_OPEN], [SYMMETRIC_OPEN])
    assert not can_be_direct([BY_ADDRESS_OPEN], [PORT_RESTRICTED])
    assert not can_be_direct([BY_ADDRESS_OPEN], [BY_ADDRESS])


def test_two_nats_are_as_strict_as_the_stricter_of_them() -> None:
    assert can_be_direct([PORT_RESTRICTED, CARRIER], [PORT_RESTRICTED])
    assert not can_be_direct([PORT_RESTRICTED, CARRIER], [SYMMETRIC])
    assert not can_be_direct([OPEN_FILTERING, SYMMETRIC], [PORT_RESTRICTED])
    assert can_be_direct([OPEN_FILTERING, CARRIER], [SYMMETRIC])


def test_an_inner_dependent_mapping_closes_the_outer_filter_too() -> None:
    assert not can_be_direct([BY_ADDRESS_OPEN, CARRIER], [PORT_RESTRICTED])
    assert can_be_direct([BY_ADDRESS_OPEN, CARRIER], [ADDRESS_RESTRICTED])


def test_it_does_not_matter_who_is_named_first() -> None:
    kinds = [Nat(mapping, filtering, Allocation.RANDOM) for mapping, filtering in product(Mapping, Filtering)]
    for one, other in product(kinds, repeat=2):
        assert can_be_direct([one], [other]) is can_be_direct([other], [one])


def test_words() -> None:
    assert SYMMETRIC.short == "APDM/APDF"
    assert BY_ADDRESS_OPEN.short == "ADM/EIF"
    assert str(CARRIER) == (
        "endpoint-independent mapping, address-dependent filtering, random ports, hairpinning"
    )


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot preserve the port"):
        Nat(Mapping.ADDRESS_DEPENDENT)
    with pytest.raises(UsageError, match="at least one second"):
        Nat(expiry_s=0)
