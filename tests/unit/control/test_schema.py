"""Errors keep their class over the API; a peer is found by name, id or address."""

import pytest

from dhtvpn import errors
from dhtvpn.control import schema

PEERS = [
    {"name": "laptop", "id": "abcdefgh", "ipv4": "10.1.0.2", "ipv6": "fd00::2"},
    {"name": "laptop", "id": "abcdwxyz", "ipv4": "10.1.0.3", "ipv6": None},
    {"name": "abcd", "id": "qqqqqqqq", "ipv4": None, "ipv6": "fd00::4"},
]


@pytest.mark.parametrize("row", schema.ERROR_KINDS.items(), ids=lambda row: str(row[0]))
def test_an_error_survives_the_way(row: tuple[str, schema.ErrorKind]) -> None:
    kind, entry = row
    error = schema.error_of(kind, "a sentence")
    assert type(error) is entry["error"]
    assert schema.kind_of(error) == kind


def test_subclasses_and_strangers() -> None:
    assert schema.kind_of(errors.InvalidNetworkIdError("x")) == "usage"
    assert schema.kind_of(errors.DecodeError("x")) == "failed"
    assert type(schema.error_of("from the future", "x")) is errors.DhtVpnError


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("laptop", ["abcdefgh", "abcdwxyz"]),
        ("LAPTOP", ["abcdefgh", "abcdwxyz"]),
        ("abcde", ["abcdefgh"]),
        ("abcd", ["qqqqqqqq"]),
        ("abc", []),
        ("10.1.0.3", ["abcdwxyz"]),
        ("fd00::4", ["qqqqqqqq"]),
        ("", []),
    ],
)
def test_peers_matching(text: str, ids: list[str]) -> None:
    assert [peer["id"] for peer in schema.peers_matching(PEERS, text)] == ids
