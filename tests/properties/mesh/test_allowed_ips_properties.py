"""Longest-prefix match against the plainest model: look at every network."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.mesh.allowed_ips import AllowedIps

Network = IPv4Network | IPv6Network

# few enough addresses that networks meet
addresses = st.integers(0, 15).map(lambda n: bytes([10, 0, 0, n])) | st.integers(0, 15).map(
    lambda n: bytes([0xFD]) + bytes(14) + bytes([n])
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    address = draw(addresses)
    bits = len(address) * 8
    return ip_network((ip_address(address), bits - draw(st.integers(0, 5))), strict=False)


steps = st.lists(st.tuples(networks(), st.sampled_from([1, 2, 3, None, -1])), max_size=30)


@given(steps, st.lists(addresses, min_size=1, max_size=20))
def test_like_the_model(changes: list[tuple[Network, int | None]], wanted: list[bytes]) -> None:
    table, model = AllowedIps(), dict[Network, int]()
    for network, peer in changes:
        if peer is None:
            table.remove(network)
            model.pop(network, None)
        elif peer < 0:
            table.remove_peer(1)
            model = {held: holder for held, holder in model.items() if holder != 1}
        else:
            table.insert(network, peer)
            model[network] = peer
    assert len(table) == len(model)
    for packed in wanted:
        holding = [network for network in model if ip_address(packed) in network]
        best = max(holding, key=lambda network: network.prefixlen, default=None)
        assert table.lookup(packed) == (model[best] if best is not None else None)
