import random

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.identity import Identity
from dhtvpn.membership.addresses import Claim, holders, ipv4_address, settle, yields
from dhtvpn.membership.network_id import NetworkId, create
from dhtvpn.membership.pairwise import ice_credentials, tunnel_psk

keys = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=16, max_size=16)
claims = st.builds(Claim, keys, st.integers(0, 15), st.integers(0, 5))
SMALL, _ = create(random.Random(1).randbytes, ipv4="10.9.8.0/28")


@given(keys, keys, nonces, nonces, keys)
def test_two_members_agree_without_a_word(
    seed_a: bytes, seed_b: bytes, nonce_a: bytes, nonce_b: bytes, secret: bytes
) -> None:
    a, b = Identity.from_seed(seed_a), Identity.from_seed(seed_b)
    assert tunnel_psk(secret, a.node_key, b.node_key) == tunnel_psk(secret, b.node_key, a.node_key)
    if a.node_key == b.node_key:
        return
    at_a = ice_credentials(a.shared_secret(b.node_key), a.node_key, nonce_a, b.node_key, nonce_b)
    at_b = ice_credentials(b.shared_secret(a.node_key), b.node_key, nonce_b, a.node_key, nonce_a)
    assert (at_a.own_ufrag, at_a.own_password) == (at_b.peer_ufrag, at_b.peer_password)
    assert (at_b.own_ufrag, at_b.own_password) == (at_a.peer_ufrag, at_a.peer_password)
    assert at_a.controlling is not at_b.controlling
    assert at_a.controlling is (a.node_key < b.node_key)


@given(claims, claims)
def test_of_two_nodes_exactly_one_yields(mine: Claim, other: Claim) -> None:
    assert yields(mine, other) + yields(other, mine) == (mine.node_key != other.node_key)


@given(claims, claims, claims)
def test_yielding_has_no_circle(a: Claim, b: Claim, c: Claim) -> None:
    if yields(a, b) and yields(b, c) and a.node_key != c.node_key:
        assert yields(a, c)


@given(st.lists(claims, max_size=20, unique_by=lambda claim: claim.node_key), st.randoms())
def test_all_members_see_the_same_holders(present: list[Claim], order: random.Random) -> None:
    shuffled = list(present)
    order.shuffle(shuffled)
    assert holders(SMALL, present) == holders(SMALL, shuffled)


def rounds_until_settled(network_id: NetworkId, present: list[Claim], order: random.Random) -> int:
    """Every node settles on what all published in the round before, until nobody moves any more."""
    for number in range(100):
        offered = list(present)
        order.shuffle(offered)
        settled = [settle(network_id, mine, offered, 100 + number) for mine in present]
        assert None not in settled
        if settled == present:
            return number
        present[:] = [claim for claim in settled if claim is not None]
    raise AssertionError("members do not come to rest")


@given(st.lists(claims, min_size=1, max_size=8, unique_by=lambda claim: claim.node_key), st.randoms())
def test_members_come_to_rest_with_an_address_each(present: list[Claim], order: random.Random) -> None:
    rounds_until_settled(SMALL, present, order)
    addresses = {ipv4_address(SMALL, claim.node_key, claim.attempt) for claim in present}
    assert len(addresses) == len(present)
