"""Datagrams of a peer leave from the address that it expects, as long as that is ours."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import cast

import pytest

from dhtvpn.dataplane.peers import Peer
from dhtvpn.dataplane.sockets import source_option
from dhtvpn.dataplane.transmitter import Transmitter
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.wireguard.transport import PeerTransport


class _Transport:
    mtu = 1420


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket(type=socket.SOCK_DGRAM) as near, socket.socket(type=socket.SOCK_DGRAM) as far:
        near.bind(("0.0.0.0", 0))
        far.bind(("127.0.0.1", 0))
        far.settimeout(5)
        yield near, far


def peer_at(far: socket.socket) -> Peer:
    peer = Peer(1, cast(PeerTransport, _Transport()))
    peer.set_endpoint(Endpoint(*far.getsockname()))
    return peer


def test_from_an_address_of_ours(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    peer = peer_at(far)
    peer.source = source_option(ip_address("127.0.0.77"))
    assert Transmitter([near], {}, Drops()).send(peer, [b"one"], 0)
    data, source = far.recvfrom(100)
    assert (data, source[0]) == (b"one", "127.0.0.77")


def test_an_address_that_is_not_ours_any_more_is_given_up(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    peer, drops = peer_at(far), Drops()
    peer.source = source_option(ip_address("192.0.2.77"))
    assert Transmitter([near], {}, drops).send(peer, [b"two"], 0)
    assert far.recvfrom(100)[1][0] == "127.0.0.1"
    assert peer.source == [] and not drops.as_dict()


def test_another_endpoint_is_another_way() -> None:
    peer = Peer(1, cast(PeerTransport, _Transport()))
    for move in (
        lambda: peer.set_endpoint(Endpoint("192.0.2.1", 1)),
        lambda: peer.roam(socket.AF_INET, ("192.0.2.2", 1)),
    ):
        peer.source = source_option(ip_address("192.0.2.9"))
        move()
        assert peer.source == []
    peer.source = source_option(ip_address("192.0.2.9"))
    assert not peer.roam(socket.AF_INET, ("192.0.2.2", 1))
    assert peer.source == source_option(ip_address("192.0.2.9"))


def test_the_option_of_each_family() -> None:
    ((level, kind, data),) = source_option(ip_address("2001:db8::9"))
    assert (level, kind, data) == (socket.IPPROTO_IPV6, 50, ip_address("2001:db8::9").packed + bytes(4))
    ((level, kind, data),) = source_option(ip_address("192.0.2.9"))
    assert (level, kind, data) == (socket.IPPROTO_IP, 8, bytes(4) + bytes([192, 0, 2, 9]) + bytes(4))
