"""What an engine is told: of the peers that there are, and of new keys."""

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
    """Takes everything that a node would be told."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values: None


async def test_the_engine_has_the_keys_before_the_answer_leaves() -> None:
    """The peer sends as soon as it has the answer: what came before the keys would be lost."""
    keys = [os.urandom(32), os.urandom(32)]
    here, engine = Endpoint("192.0.2.7", 4690), Engine()
    sent: list[bytes] = []

    def send(data: bytes, endpoint: Endpoint) -> None:
        sent.append(data)
        engine.told.append(("sent",))

    def end(own: bytes, other: bytes) -> tuple[Tunnels, Peer]:
        table = PeerTable()
        tunnels = Tunnels(
            device=Device(own, os.urandom, drops=Drops()),
            engine=engine,  # type: ignore[arg-type]
            table=table,
            send=send,
            drops=Drops(),
            listener=Listener(),  # type: ignore[arg-type]
            features=0,
        )
        peer = table.add(
            tunnel_key=bytes(PrivateKey(other).public_key),
            node_key=None,
            id="peer",
            name="peer",
            ipv4=None,
            ipv6=IPv6Address("fd00::1"),
        )
        assert peer is not None
        tunnels.add(peer, bytes(32), None)
        return tunnels, peer

    (one, peer), (other, _) = end(*keys), end(*reversed(keys))
    one.knock(peer, [here])
    engine.told.clear()
    other.datagram_received(sent[0], here)
    words = [told[0] for told in engine.told]
    assert words.index("install_keypair") < words.index("sent")
    for tunnels in (one, other):
        tunnels.close()
