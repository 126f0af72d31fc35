from ipaddress import IPv4Network, IPv6Network

import pytest

from dhtvpn.membership.addresses import (
    MAX_ATTEMPTS,
    Claim,
    holders,
    ipv4_address,
    ipv4_network,
    ipv6_address,
    ipv6_network,
    settle,
    yields,
)
from dhtvpn.membership.network_id import Mode, NetworkId


def network(number: int = 1, ipv4: str | None = None) -> NetworkId:
    override = IPv4Network(ipv4) if ipv4 else None
    return NetworkId(Mode.OPEN, bytes([number]) * 32, bytes(32), override)


def node(number: int) -> bytes:
    return number.to_bytes(32)


def test_networks_lie_where_they_should() -> None:
    for number in range(100):
        network_id = network(number)
        assert ipv6_network(network_id).subnet_of(IPv6Network("fd00::/8"))
        assert ipv6_network(network_id).prefixlen == 64
        assert ipv4_network(network_id).subnet_of(IPv4Network("10.0.0.0/8"))
        assert ipv4_network(network_id).prefixlen == 16
    assert len({ipv6_network(network(number)) for number in range(100)}) == 100


def test_the_creators_choice_counts_for_ipv4_only() -> None:
    chosen = network(1, "192.168.7.0/24")
    assert ipv4_network(chosen) == IPv4Network("192.168.7.0/24")
    assert ipv6_network(chosen) == ipv6_network(network(1))
    assert ipv6_address(chosen, node(1)) == ipv6_address(network(1), node(1))


def test_the_secret_does_not_move_addresses() -> None:
    other = NetworkId(Mode.OPEN, network().public_key, b"\1" * 32)
    assert ipv6_address(other, node(1)) == ipv6_address(network(), node(1))


def test_ipv6_addresses_are_distinct_and_not_reserved() -> None:
    addresses = {ipv6_address(network(), node(number)) for number in range(500)}
    assert len(addresses) == 500
    for address in addresses:
        assert address in ipv6_network(network())
        assert address.packed[8] >> 6 == 0b01


@pytest.mark.parametrize("cidr", [None, "192.168.7.0/24", "10.9.8.0/29", "10.0.0.0/8"])
def test_ipv4_attempts_are_distinct_host_addresses(cidr: str | None) -> None:
    network_id = network(1, cidr)
    space = ipv4_network(network_id)
    for number in range(100):
        tries = [ipv4_address(network_id, node(number), attempt) for attempt in range(MAX_ATTEMPTS)]
        assert len(set(tries)) == min(MAX_ATTEMPTS, space.num_addresses - 2)
        assert all(address in space for address in tries)
        assert space.network_address not in tries
        assert space.broadcast_address not in tries


@pytest.mark.parametrize("attempt", [-1, MAX_ATTEMPTS])
def test_attempts_have_an_end(attempt: int) -> None:
    with pytest.raises(ValueError, match="attempt"):
        ipv4_address(network(), node(1), attempt)


def test_the_older_claim_stays_and_then_the_lower_key() -> None:
    old, young = Claim(node(9), 0, 100), Claim(node(1), 0, 101)
    assert yields(young, old)
    assert not yields(old, young)
    low, high = Claim(node(1), 0, 100), Claim(node(2), 0, 100)
    assert yields(high, low)
    assert not yields(low, high)


def test_a_node_never_yields_to_itself() -> None:
    assert not yields(Claim(node(1), 0, 101), Claim(node(1), 0, 100))


def test_the_standing_claim_holds_the_address() -> None:
    full = network(1, "10.9.8.0/29")
    claims = [Claim(node(number), 0, 1000 - number) for number in range(20)]
    standing = holders(full, claims)
    assert holders(full, reversed(claims)) == standing
    for claim in claims:
        holder = standing[ipv4_address(full, claim.node_key, claim.attempt)]
        assert holder == claim or yields(claim, holder)


def test_the_loser_moves_to_a_free_address_and_stays_there() -> None:
    full = network(1, "10.9.8.0/29")
    taken: list[Claim] = []
    for number in range(6):
        claim = settle(full, Claim(node(number), 0, 1000 + number), taken, 5000.5)
        assert claim is not None
        assert claim.since in (1000 + number, 5000)
        taken.append(claim)
    assert len(holders(full, taken)) == 6
    for claim in taken:
        others = [other for other in taken if other is not claim]
        assert settle(full, claim, others, 6000) is claim


def test_a_full_network_leaves_no_address() -> None:
    full = network(1, "10.9.8.0/29")
    taken: list[Claim] = []
    for number in range(6):
        claim = settle(full, Claim(node(number), 0, 1000), taken, 1000)
        assert claim is not None
        taken.append(claim)
    assert settle(full, Claim(node(7), 0, 2000), taken, 2000) is None


def test_an_older_record_of_ones_own_does_not_count() -> None:
    mine = Claim(node(1), 0, 1000)
    assert settle(network(), mine, [Claim(node(1), 0, 500)], 2000) is mine
    winner = Claim(node(0), 0, 0)
    full = network(1, "10.9.8.0/29")
    loser = next(
        Claim(node(number), 0, 1000)
        for number in range(1, 100)
        if ipv4_address(full, node(number)) == ipv4_address(full, winner.node_key)
    )
    own_records = [Claim(loser.node_key, attempt, 500) for attempt in range(1, MAX_ATTEMPTS)]
    assert settle(full, loser, [winner, *own_records], 2000) == Claim(loser.node_key, 1, 2000)
