"""What a new engine is told of the peers that there are."""

import os
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from nacl.public import PrivateKey

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.frames import FEATURE_AES, FEATURE_TRAINS, FEATURE_UDP_TRAINS
from dhtvpn.mesh.peers import Peer, PeerTable
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


class Listener:
    def __init__(self) -> None:
        self.up: list[Any] = []

    def session_up(self, peer: Peer) -> None:
        self.up.append(peer.endpoint)

    def endpoint_moved(self, peer: Peer) -> None:
        """Nothing is done with it here."""


class Side:
    """One of two nodes; what it sends goes to ``wire`` with where it goes."""

    def __init__(self) -> None:
        self.key = os.urandom(32)
        self.device = Device(self.key, os.urandom, drops=Drops())
        self.table, self.engine, self.listener = PeerTable(), Engine(), Listener()
        self.wire: list[tuple[bytes, Endpoint]] = []
        self.tunnels = Tunnels(
            device=self.device,
            engine=self.engine,  # type: ignore[arg-type]
            table=self.table,
            send=lambda data, endpoint: self.wire.append((data, endpoint)),
            drops=Drops(),
            listener=self.listener,  # type: ignore[arg-type]
            features=0,
        )

    def meet(self, other: "Side") -> Peer:
        peer = self.table.add(
            tunnel_key=bytes(PrivateKey(other.key).public_key),
            node_key=None,
            id="peer",
            name="peer",
            ipv4=IPv4Address("10.7.0.1"),
            ipv6=IPv6Address("fd00::1"),
        )
        assert peer is not None
        self.tunnels.add(peer, bytes(32), None)
        return peer


async def test_where_a_knock_is_answered_packets_go_at_once() -> None:
    """Also where it was the only place knocked at: the engine is told before it has anything to send."""
    here, there = Endpoint("198.18.1.1", 1), Endpoint("198.18.2.2", 2)
    near, far = Side(), Side()
    peer, back = near.meet(far), far.meet(near)
    near.tunnels.knock(peer, [there])
    ((initiation, sent_to),) = near.wire
    assert sent_to == there and not far.tunnels.answered_lately(back)
    far.tunnels.datagram_received(initiation, here)
    assert far.tunnels.answered_lately(back)
    near.tunnels.datagram_received(far.wire[0][0], there)
    assert peer.endpoint == there and near.listener.up == [there]
    told = [what for what, *_ in near.engine.told]
    assert told.index("set_endpoint") < told.index("send")
    for side in (near, far):
        side.tunnels.close()
