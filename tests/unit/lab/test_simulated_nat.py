"""The simulated NAT does to endpoints what its behaviour's words say."""

import random
from dataclasses import replace
from itertools import product

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.nat_behaviour import (
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Allocation,
    Filtering,
    Mapping,
    Nat,
)
from dhtvpn.lab.simulation.simulated_nat import SWEEP_AT, SimulatedNat

INSIDE, BESIDE = Endpoint("192.168.1.10", 41000), Endpoint("192.168.1.11", 41000)
SERVER, OTHER_PORT, STRANGER = (
    Endpoint("8.8.1.1", 5001),
    Endpoint("8.8.1.1", 5002),
    Endpoint("8.8.2.2", 5001),
)


def nat_of(behaviour: Nat) -> SimulatedNat:
    return SimulatedNat(behaviour, "8.9.9.9", random.Random(1))


def randomly(mapping: Mapping, filtering: Filtering) -> Nat:
    return Nat(mapping, filtering, Allocation.RANDOM, expiry_s=60)


EVERY = [randomly(mapping, filtering) for mapping, filtering in product(Mapping, Filtering)]


@pytest.mark.parametrize("behaviour", EVERY, ids=lambda nat: nat.short)
def test_mapping_as_rfc_5780_finds_it_out(behaviour: Nat) -> None:
    nat = nat_of(behaviour)
    first, third, second = (nat.outgoing(INSIDE, to, 0.0).port for to in (SERVER, OTHER_PORT, STRANGER))
    assert (first == second) is (behaviour.mapping is Mapping.ENDPOINT_INDEPENDENT)
    assert (first == third) is (behaviour.mapping is not Mapping.ADDRESS_AND_PORT_DEPENDENT)
    assert nat.outgoing(INSIDE, SERVER, 1.0).port == first
    assert nat.outgoing(BESIDE, SERVER, 1.0).port != first


@pytest.mark.parametrize("behaviour", EVERY, ids=lambda nat: nat.short)
def test_filtering_as_rfc_5780_finds_it_out(behaviour: Nat) -> None:
    nat = nat_of(behaviour)
    port = nat.outgoing(INSIDE, SERVER, 0.0).port
    assert nat.incoming(SERVER, port, 1.0) == INSIDE
    strict = behaviour.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT
    assert nat.incoming(OTHER_PORT, port, 1.0) == (None if strict else INSIDE)
    open_to_all = behaviour.filtering is Filtering.ENDPOINT_INDEPENDENT
    assert nat.incoming(STRANGER, port, 1.0) == (INSIDE if open_to_all else None)
    assert nat.incoming(SERVER, port + 1, 1.0) is None


def test_a_preserved_port_that_is_taken_gives_way_to_the_next() -> None:
    nat = nat_of(PORT_RESTRICTED)
    assert nat.outgoing(INSIDE, SERVER, 0.0) == Endpoint("8.9.9.9", INSIDE.port)
    assert nat.outgoing(BESIDE, SERVER, 0.0).port == INSIDE.port + 1
    assert nat.incoming(SERVER, INSIDE.port + 1, 0.0) == BESIDE


def test_contiguous_ports_can_be_foreseen() -> None:
    nat = nat_of(replace(SYMMETRIC, allocation=Allocation.CONTIGUOUS))
    ports = [nat.outgoing(INSIDE, to, 0.0).port for to in (SERVER, STRANGER, OTHER_PORT)]
    assert [port - ports[0] for port in ports] == [0, 1, 2]


def test_a_mapping_expires_without_outgoing_traffic_and_comes_back_with_another_port() -> None:
    nat = nat_of(randomly(Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT))
    before = nat.outgoing(INSIDE, SERVER, 0.0)
    assert nat.outgoing(INSIDE, STRANGER, 50.0) == before
    assert nat.incoming(SERVER, before.port, 70.0) is None  # the mapping lives, this permission does not
    assert nat.incoming(STRANGER, before.port, 70.0) == INSIDE
    assert nat.incoming(STRANGER, before.port, 110.0) is None
    assert nat.outgoing(INSIDE, SERVER, 111.0).port != before.port
    assert nat.mappings_made == 2


def test_incoming_traffic_renews_nothing() -> None:
    nat = nat_of(replace(OPEN_FILTERING, expiry_s=60))
    port = nat.outgoing(INSIDE, SERVER, 0.0).port
    assert nat.incoming(SERVER, port, 59.0) == INSIDE
    assert nat.incoming(SERVER, port, 61.0) is None


def test_hairpinning_shows_the_external_endpoint_and_asks_no_filter() -> None:
    nat = nat_of(replace(PORT_RESTRICTED, hairpinning=True))
    mapped = nat.outgoing(BESIDE, SERVER, 0.0)
    own = nat.outgoing(INSIDE, SERVER, 0.0)
    assert nat.turned(INSIDE, mapped.port, 1.0) == (own, BESIDE)
    assert nat.turned(INSIDE, 1, 1.0) is None
    plain = nat_of(PORT_RESTRICTED)
    assert plain.turned(INSIDE, plain.outgoing(BESIDE, SERVER, 0.0).port, 1.0) is None


def test_a_reboot_forgets_everything() -> None:
    nat = nat_of(OPEN_FILTERING)
    port = nat.outgoing(INSIDE, SERVER, 0.0).port
    nat.reboot("8.9.9.10")
    assert nat.incoming(SERVER, port, 0.0) is None
    assert nat.outgoing(INSIDE, SERVER, 0.0).host == "8.9.9.10"


def test_what_has_expired_does_not_stay_for_ever() -> None:
    nat = nat_of(SYMMETRIC)
    for number in range(3 * SWEEP_AT):
        nat.outgoing(INSIDE, Endpoint("8.8.3.3", 1024 + number), float(number))
    assert len(nat._bindings) <= SWEEP_AT + 2
    permissive = nat_of(PORT_RESTRICTED)
    for number in range(3 * SWEEP_AT):
        permissive.outgoing(INSIDE, Endpoint("8.8.3.3", 1024 + number), float(number))
    assert max(len(binding.permits) for binding in permissive._bindings.values()) <= SWEEP_AT + 1
