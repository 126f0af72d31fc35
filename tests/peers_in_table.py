"""Peers as tests need them: in a table, told apart by a number."""

from ipaddress import IPv4Address, IPv6Address

from dhtvpn.mesh.peers import Peer, PeerTable


def add_peer(table: PeerTable, number: int = 1, name: str = "peer") -> Peer:
    """A member whose keys are ``number`` 32 times, and whose addresses end in it."""
    peer = table.add(
        tunnel_key=bytes([number]) * 32,
        node_key=bytes([number]) * 32,
        id=name,
        name=name,
        ipv4=IPv4Address("10.7.0.0") + number,
        ipv6=IPv6Address("fd00::") + number,
    )
    assert peer is not None
    return peer
