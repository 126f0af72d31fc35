"""docs/protocol/network-id.md, byte for byte. The JSON was computed from that page without this package."""

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from dhtvpn import identity as identities
from dhtvpn.identity import Identity
from dhtvpn.membership import addresses, pairwise
from dhtvpn.membership.network_id import Mode, NetworkId

HERE = Path(__file__).parent


def vectors(name: str) -> list[dict[str, Any]]:
    return json.loads((HERE / name).read_text())


@pytest.mark.parametrize("vector", vectors("network_id.json"))
def test_network_id(vector: dict[str, Any]) -> None:
    ipv4 = IPv4Network(vector["ipv4"]) if vector["ipv4"] else None
    network_id = NetworkId(
        Mode[vector["mode"]], bytes.fromhex(vector["public_key"]), bytes.fromhex(vector["secret"]), ipv4
    )
    assert network_id.encode() == vector["word"]
    assert NetworkId.decode(vector["word"]) == network_id
    assert network_id.short == vector["short"]


@pytest.mark.parametrize("vector", vectors("identity.json"))
def test_identity(vector: dict[str, Any]) -> None:
    identity = Identity.from_seed(bytes.fromhex(vector["seed"]))
    assert identity.node_key.hex() == vector["node_key"]
    assert identity.short_id == vector["short_id"]
    assert identity.tunnel_private_key.hex() == vector["tunnel_private_key"]
    assert identity.tunnel_public_key.hex() == vector["tunnel_public_key"]
    assert identities.tunnel_public_key(identity.node_key) == identity.tunnel_public_key
    assert identity.sign(bytes.fromhex(vector["message"])).hex() == vector["signature"]


@pytest.mark.parametrize("vector", vectors("addresses.json"))
def test_addresses(vector: dict[str, Any]) -> None:
    network_id = NetworkId.decode(vector["word"])
    assert str(addresses.ipv6_network(network_id)) == vector["ipv6_network"]
    assert str(addresses.ipv4_network(network_id)) == vector["ipv4_network"]
    for node in vector["nodes"]:
        node_key = bytes.fromhex(node["node_key"])
        assert str(addresses.ipv6_address(network_id, node_key)) == node["ipv6"]
        attempts = range(addresses.MAX_ATTEMPTS)
        assert [str(addresses.ipv4_address(network_id, node_key, i)) for i in attempts] == node["ipv4"]


@pytest.mark.parametrize("vector", vectors("pairwise.json"))
def test_pairwise(vector: dict[str, Any]) -> None:
    own = Identity.from_seed(bytes.fromhex(vector["own_seed"]))
    peer = Identity.from_seed(bytes.fromhex(vector["peer_seed"]))
    shared_secret = own.shared_secret(peer.node_key)
    assert shared_secret.hex() == vector["shared_secret"]
    psk = pairwise.tunnel_psk(bytes.fromhex(vector["secret"]), own.node_key, peer.node_key)
    assert psk.hex() == vector["psk"]
    own_nonce, peer_nonce = bytes.fromhex(vector["own_nonce"]), bytes.fromhex(vector["peer_nonce"])
    credentials = pairwise.ice_credentials(shared_secret, own.node_key, own_nonce, peer.node_key, peer_nonce)
    fields = ("own_ufrag", "own_password", "peer_ufrag", "peer_password", "controlling")
    assert {name: getattr(credentials, name) for name in fields} == {name: vector[name] for name in fields}
