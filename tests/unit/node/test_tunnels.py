"""What a new engine is told of the peers that there are; where a session leads that a knock has brought."""

import os
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from dhtvpn.dataplane.messages import KeypairConfirmed
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.frames import FEATURE_AES, FEATURE_TRAINS, FEATURE_UDP_TRAINS
from dhtvpn.mesh.peers import Occasion, Peer, PeerTable
from dhtvpn.mesh.relayed import relayed
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.wireguard.device import Device
from dhtvpn.wireguard.noise import public_key


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
    """Where the peer was when its session came up."""

    def __init__(self) -> None:
        self.up_at: list[Endpoint | None] = []

    def session_up(self, peer: Peer) -> None:
        self.up_at.append(peer.endpoint)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: None


class End:
    """One of two that know each other. What it sends arrives as if from the endpoint it was sent to."""

    def __init__(self, private_key: bytes, other: bytes) -> None:
        table = PeerTable()
        self.listener, self.engine = Listener(), Engine()
        self.sent: list[tuple[bytes, Endpoint]] = []
        self.tunnels = Tunnels(
            device=Device(private_key, os.urandom, drops=Drops()),
            engine=self.engine,  # type: ignore[arg-type]
            table=table,
            send=self._send,
            drops=Drops(),
            listener=self.listener,  # type: ignore[arg-type]
            features=0,
        )
        peer = table.add(
            tunnel_key=other, node_key=other, id="peer", name="peer", ipv4=None, ipv6=IPv6Address("fd00::1")
        )
        assert peer is not None
        self.peer = peer
        self.tunnels.add(peer, bytes(32), None)

    def _send(self, data: bytes, endpoint: Endpoint) -> None:
        self.sent.append((data, endpoint))
        self.engine.told.append(("sent",))

    def deliver(self, other: "End") -> None:
        sent, self.sent = self.sent, []
        for data, endpoint in sent:
            other.tunnels.datagram_received(data, endpoint)

    def told(self, word: str) -> list[tuple[Any, ...]]:
        return [each for each in self.engine.told if each[0] == word]


@pytest.mark.parametrize("way", [relayed(1, 1), Endpoint("192.0.2.7", 4690)], ids=["relayed", "direct"])
async def test_a_knock_that_is_answered_from_where_it_went_says_where_the_peer_is(way: Endpoint) -> None:
    keys = [os.urandom(32), os.urandom(32)]
    one, other = End(keys[0], public_key(keys[1])), End(keys[1], public_key(keys[0]))
    other.tunnels.knock(other.peer, [way])  # both do: each has told its core where the other may be
    other.sent.clear()
    one.tunnels.knock(one.peer, [way])
    assert not other.tunnels.answered_lately(other.peer)
    one.deliver(other)
    assert other.tunnels.answered_lately(other.peer)
    assert other.peer.endpoint == way, "before the first message that confirms the keys"
    assert [each[0] for each in other.engine.told][-2:] == ["install_keypair", "sent"], (
        "keys before the answer"
    )
    other.deliver(one)
    assert one.listener.up_at == [way]
    words = [each[0] for each in one.engine.told]
    assert words.index("set_endpoint") < words.index("install_keypair"), "packets may wait for the keys"
    assert one.told("set_endpoint") == [("set_endpoint", 1, way)] == other.told("set_endpoint")
    (keypair,) = (each[2] for each in other.told("install_keypair"))
    other.tunnels.engine_event(KeypairConfirmed(1, keypair.local_index))
    assert other.listener.up_at == [way]
    for end in (one, other):
        end.tunnels.close()


async def test_a_knock_at_a_connected_peer_that_nobody_answers_leads_no_handshake_astray() -> None:
    one = End(os.urandom(32), public_key(os.urandom(32)))
    here, elsewhere = Endpoint("192.0.2.7", 4690), Endpoint("198.51.100.7", 4690)
    one.tunnels.aim(one.peer, here)
    one.peer.move(Occasion.NEWS)
    one.peer.move(Occasion.SESSION_UP)
    one.tunnels.knock(one.peer, [elsewhere])
    one.tunnels.initiate(one.peer)
    assert [endpoint for _, endpoint in one.sent] == [elsewhere, here]
    one.tunnels.close()
