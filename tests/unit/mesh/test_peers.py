"""The peer table: states move by the table only, and a person finds exactly the peer that they mean."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import product

import pytest

from dhtvpn.errors import NotFoundError
from dhtvpn.mesh import peers
from dhtvpn.mesh.peers import TRANSITIONS, Occasion, Peer, PeerState, PeerTable


def add(table: PeerTable, number: int, name: str, id_: str | None = None) -> Peer:
    peer = table.add(
        tunnel_key=bytes([number]) * 32,
        node_key=bytes([number]) * 32,
        id=id_ or f"id{number:06d}",
        name=name,
        ipv4=IPv4Address(f"10.7.0.{number}"),
        ipv6=IPv6Address(f"fd00::{number}"),
    )
    assert peer is not None
    return peer


def test_every_state_has_an_answer_to_every_occasion() -> None:
    assert set(TRANSITIONS) == set(product(PeerState, Occasion))


def test_move_tells_whether_the_state_changed() -> None:
    peer = add(PeerTable(), 1, "laptop")
    assert peer.state is PeerState.CONNECTING and peer.path is None
    assert peer.move(Occasion.SESSION_UP)
    assert peer.state is PeerState.CONNECTED and peer.path == "direct"
    assert not peer.move(Occasion.SESSION_UP)
    assert peer.move(Occasion.GONE)
    assert peer.state is PeerState.UNREACHABLE


def test_allowed_ips_are_the_peers_own_addresses() -> None:
    peer = add(PeerTable(), 1, "laptop")
    assert set(peer.allowed_ips) == {IPv4Network("10.7.0.1/32"), IPv6Network("fd00::1/128")}
    peer.ipv4 = None
    assert peer.allowed_ips == (IPv6Network("fd00::1/128"),)


def test_find_by_name_id_prefix_and_address() -> None:
    table = PeerTable()
    laptop, phone = add(table, 1, "laptop", "abcd2345"), add(table, 2, "phone", "abxy2345")
    assert table.find("laptop") is laptop
    assert table.find("ABXY") is phone
    assert table.find("10.7.0.2") is phone
    assert table.find("fd00:0::1") is laptop


def test_find_says_how_to_name_one_of_two_alike() -> None:
    table = PeerTable()
    add(table, 1, "laptop", "abcd2345"), add(table, 2, "laptop", "efgh2345")
    with pytest.raises(NotFoundError, match=r"2 peers: abcd2345 \(10\.7\.0\.1\), efgh2345"):
        table.find("laptop")
    for text in ("", "desktop", "10.7.0.9"):
        with pytest.raises(NotFoundError):
            table.find(text)


def test_the_table_has_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_PEERS", 1)
    table = PeerTable()
    first = add(table, 1, "laptop")
    arguments = {"tunnel_key": bytes(32), "node_key": None, "id": "x", "name": "y", "ipv4": None}
    assert table.add(**arguments, ipv6=IPv6Address("fd00::9")) is None
    table.remove(first)
    assert len(table) == 0 and table.by_number(first.number) is None
