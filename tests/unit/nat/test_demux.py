"""Whose datagram is it, by its first bytes (docs/protocol/one-port.md, table "First bytes")."""

import pytest

from dhtvpn.nat.demux import DHT_PREFIX, NOTE_PREFIX, Kind, classify

COOKIE = bytes.fromhex("2112a442")
ID = bytes(12)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x00\x01\x00\x00" + COOKIE + ID, Kind.STUN),
        (b"\x01\x01\x00\x0c" + COOKIE + ID + bytes(12), Kind.STUN),
        (b"\x01\x11\x00\x00" + COOKIE + ID, Kind.STUN),
        (b"\x01\x00\x00\x00" + bytes(144), Kind.TUNNEL_HANDSHAKE),
        (b"\x02\x00\x00\x00" + bytes(88), Kind.TUNNEL_HANDSHAKE),
        (b"\x03\x00\x00\x00" + bytes(60), Kind.TUNNEL_HANDSHAKE),
        (b"\x04\x00\x00\x00" + bytes(28), Kind.TUNNEL_DATA),
        (b"\x05\x00\x00\x00" + bytes(28), Kind.TUNNEL_DATA),
        (bytes([DHT_PREFIX]) + b"x", Kind.DHT),
        (bytes([DHT_PREFIX]), Kind.DHT),
        (bytes([NOTE_PREFIX]) + b"x", Kind.NOTE),
        (b"d1:rd2:id20:", Kind.KRPC),
        (b"d", Kind.KRPC),
        (b"", Kind.UNKNOWN),
        (b"\x00", Kind.UNKNOWN),
        (b"\x01\x00\x00", Kind.UNKNOWN),
        (b"\x04\x01\x00\x00" + bytes(28), Kind.UNKNOWN),
        (b"\x06\x00\x00\x00" + bytes(28), Kind.UNKNOWN),
        (b"\x00\x00\x00\x00" + bytes(28), Kind.UNKNOWN),
        (b"\x00\x01\x00\x00" + COOKIE + ID[:-1], Kind.UNKNOWN),
        (b"\x00\x01\x00\x00" + b"\x21\x12\xa4\x43" + ID, Kind.UNKNOWN),
        (b"\x40\x01\x00\x00" + COOKIE + ID, Kind.UNKNOWN),
        (b"\xff" * 40, Kind.UNKNOWN),
    ],
)
def test_the_first_bytes_decide(data: bytes, kind: Kind) -> None:
    assert classify(data) is kind


def test_a_sender_index_equal_to_the_cookie_is_still_the_tunnels() -> None:
    assert classify(b"\x01\x00\x00\x00" + COOKIE + bytes(140)) is Kind.TUNNEL_HANDSHAKE
