"""Whose datagram is it? The first bytes say (docs/protocol/one-port.md).

Pure. STUN (RFC 8489), the tunnel (WireGuard's message types 1-4 and our 5) and the DHT share one UDP
port per address family, in the manner of RFC 7983.
"""

from enum import Enum

from dhtvpn.mesh.relay_wire import DATA_PREFIX, HANDSHAKE_PREFIX, SERVICE_PREFIX
from dhtvpn.nat import krpc

STUN_COOKIE = b"\x21\x12\xa4\x42"
"""Magic cookie at offset 4 (RFC 8489 section 5)."""

STUN_HEADER = 20
"""Bytes of a STUN header (RFC 8489 section 5)."""

DHT_PREFIX = 0xD7
"""First byte of a DHT datagram. Ours: outside RFC 7983's ranges for STUN, TURN, DTLS and RTP."""

DHT_PREFIX_BYTES = bytes([DHT_PREFIX])
NOTE_PREFIX = 0xD8
"""First byte of a sealed datagram between members (docs/protocol/lan.md). Ours, beside the DHT's."""

NOTE_PREFIX_BYTES = bytes([NOTE_PREFIX])
RESERVED = b"\x00\x00\x00"
"""The three bytes after a WireGuard message type (WireGuard whitepaper, section 5.4)."""


class Kind(Enum):
    """What a datagram claims to be. The room that gets it still checks everything."""

    STUN = "stun"
    TUNNEL_HANDSHAKE = "tunnel handshake"
    TUNNEL_DATA = "tunnel data"
    DHT = "dht"
    NOTE = "note"
    RELAYED_HANDSHAKE = "relayed handshake"
    RELAY_SERVICE = "relay service"
    KRPC = "krpc"
    """An answer of the BitTorrent DHT; taken only where that is used."""
    UNKNOWN = "unknown"


_BY_PREFIX = {
    DHT_PREFIX: Kind.DHT,
    NOTE_PREFIX: Kind.NOTE,
    DATA_PREFIX: Kind.TUNNEL_DATA,
    HANDSHAKE_PREFIX: Kind.RELAYED_HANDSHAKE,
    SERVICE_PREFIX: Kind.RELAY_SERVICE,
}


def classify(data: bytes) -> Kind:
    """The kind of a datagram, by its first eight bytes and its length. Never raises.

    The tunnel is asked first. As STUN, types 1-3 with three zero bytes would be messages without
    attributes of methods that do not exist, so a sender index that happens to equal the cookie takes
    nothing from anybody.
    """
    if not data:
        return Kind.UNKNOWN
    first = data[0]
    if first in _BY_PREFIX:
        return _BY_PREFIX[first]
    if 1 <= first <= 5 and data[1:4] == RESERVED:
        return Kind.TUNNEL_HANDSHAKE if first <= 3 else Kind.TUNNEL_DATA
    if first <= 3 and len(data) >= STUN_HEADER and data[4:8] == STUN_COOKIE:
        return Kind.STUN
    return Kind.KRPC if first == krpc.FIRST_BYTE else Kind.UNKNOWN
