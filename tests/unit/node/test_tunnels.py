"""What a new engine is told of the peers that there are."""

import os
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from dhtvpn.drops import Drops
from dhtvpn.mesh.frames import FEATURE_AES, FEATURE_TRAINS, FEATURE_UDP_TRAINS
from dhtvpn.mesh.peers import PeerTable
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.wireguard.device import Device


class Engine:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **named: self.told.append((name, *values, *named.values()))


def test_a_new_engine_learns_the_path_mtus() -> None:
    table = PeerTable()
    first, second = Engine(), Engine()
    tunnels = Tunnels(
        device=Device(os.urandom(32), os.urandom, drops=Drops()),
        engine=first,  # type: ignore[arg-type]
        table=table,
        send=lambda data, endpoint: None,
        drops=Drops(),
        listener=None,  # type: ignore[arg-type]
        features=FEATURE_TRAINS | FEATURE_AES,
    )
    for number in (1, 2):
        peer = table.add(
            tunnel_key=bytes([number]) * 32,
            node_key=None,
            id=f"peer{number}",
            name=f"peer{number}",
            ipv4=IPv4Address(f"10.7.0.{number}"),
            ipv6=IPv6Address(f"fd00::{number}"),
        )
        assert peer is not None
        if number == 1:
            tunnels.set_mtu(peer, 8940)
            tunnels.use_features(peer, FEATURE_AES | FEATURE_UDP_TRAINS)
    tunnels.use_engine(second)  # type: ignore[arg-type]
    assert first.told == [("set_path_mtu", 1, 8940), ("set_features", 1, False, False, True, False)]
    one, other = table.all()
    assert second.told == [
        ("set_peer", 1, one.allowed_ips, None),
        ("set_features", 1, False, False, True, False),
        ("set_path_mtu", 1, 8940),
        ("set_peer", 2, other.allowed_ips, None),
        ("set_features", 2, False, False, False, False),
        ("set_path_mtu", 2, 1420),
    ]
