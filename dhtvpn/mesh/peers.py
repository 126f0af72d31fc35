"""The peer table: every other member that this node knows, and how far the way to it has come.

    CONNECTING ──session came up──▶ CONNECTED
        │ ▲                             │  │
        │ └────────path lost────────────┘  │ said goodbye, or left the roster
    no path in time                        ▼
        └────────────────────────────▶ UNREACHABLE ──new session nonce, check or handshake──▶ CONNECTING

The transitions stand in ``TRANSITIONS``; only :meth:`Peer.move` sets a state.
"""

from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import NotFoundError
from dhtvpn.mesh.frames import FEATURE_AES
from dhtvpn.mesh.relayed import is_relayed

MAX_PEERS = 1024
"""Members held in the table. Networks larger than that need sharded topics."""


class PeerState(Enum):
    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"


class Occasion(Enum):
    """What can move a peer from one state to another."""

    SESSION_UP = "session up"
    PATH_LOST = "path lost"
    NO_PATH = "no path in time"
    GONE = "gone"
    NEWS = "news"


TRANSITIONS: dict[tuple[PeerState, Occasion], PeerState] = {
    (PeerState.CONNECTING, Occasion.SESSION_UP): PeerState.CONNECTED,
    (PeerState.CONNECTING, Occasion.PATH_LOST): PeerState.CONNECTING,
    (PeerState.CONNECTING, Occasion.NO_PATH): PeerState.UNREACHABLE,
    (PeerState.CONNECTING, Occasion.GONE): PeerState.UNREACHABLE,
    (PeerState.CONNECTING, Occasion.NEWS): PeerState.CONNECTING,
    (PeerState.CONNECTED, Occasion.SESSION_UP): PeerState.CONNECTED,
    (PeerState.CONNECTED, Occasion.PATH_LOST): PeerState.CONNECTING,
    (PeerState.CONNECTED, Occasion.NO_PATH): PeerState.CONNECTED,
    (PeerState.CONNECTED, Occasion.GONE): PeerState.UNREACHABLE,
    (PeerState.CONNECTED, Occasion.NEWS): PeerState.CONNECTED,
    (PeerState.UNREACHABLE, Occasion.SESSION_UP): PeerState.CONNECTED,
    (PeerState.UNREACHABLE, Occasion.PATH_LOST): PeerState.UNREACHABLE,
    (PeerState.UNREACHABLE, Occasion.NO_PATH): PeerState.UNREACHABLE,
    (PeerState.UNREACHABLE, Occasion.GONE): PeerState.UNREACHABLE,
    (PeerState.UNREACHABLE, Occasion.NEWS): PeerState.CONNECTING,
}


@dataclass(eq=False)
class Peer:
    """One other member (or a stock WireGuard peer) of the network."""

    tunnel_key: bytes
    """X25519 public key, 32 bytes: what the tunnel knows it by."""
    node_key: bytes | None
    """Ed25519 public key, 32 bytes; None for a stock WireGuard peer, which has no node."""
    id: str
    """Short form of the key, for people and logs."""
    name: str
    ipv4: IPv4Address | None
    ipv6: IPv6Address
    number: int
    """What the engine calls it; never reused while the process runs."""
    state: PeerState = PeerState.CONNECTING
    endpoint: Endpoint | None = None
    """Where its datagrams go now: the path in use, or the last one that worked."""
    heard_at: Endpoint | None = None
    """Where its newest control frame came from."""
    relays: tuple[Endpoint, ...] = ()
    """Volunteers that it says it is registered at."""
    relay_ids: tuple[bytes, ...] = ()
    """What relays call it: now, and in the other epochs that members may be in."""
    relays_for_members: bool = False
    """Its Hello says so."""
    rtt_ms: float | None = None
    mtu: int | None = None
    """The longest inner packet that the path takes, in bytes; None where that is not known."""
    rx_bytes: int = 0
    tx_bytes: int = 0
    heard_bytes: int = 0
    """Of ``rx_bytes``, what came by the path that is in use."""
    last_heard: float = 0.0
    """Monotonic seconds at which something has last come by it."""
    session_nonce: bytes | None = field(default=None, repr=False)
    """Of the run of the peer that the present session is with, as its Hello said."""
    features: int = 0
    """What both sides have said in their Hellos, bits of ``frames``."""
    last_occasion: Occasion | None = None
    """What has moved it last."""

    def move(self, occasion: Occasion) -> bool:
        """Apply ``occasion`` and return whether the state changed."""
        before = self.state
        self.state = TRANSITIONS[before, occasion]
        self.last_occasion = occasion
        return self.state is not before

    @property
    def path(self) -> str | None:
        """How packets go there: "direct", "relayed", or None where there is no path."""
        if self.state is not PeerState.CONNECTED:
            return None
        return "relayed" if self.relayed else "direct"

    @property
    def relayed(self) -> bool:
        """Whether ``endpoint`` is a place beyond a relay."""
        return is_relayed(self.endpoint)

    @property
    def cipher(self) -> str | None:
        """What seals the packets that go there; None where there is no path."""
        if self.state is not PeerState.CONNECTED:
            return None
        return "aes-256-gcm" if self.features & FEATURE_AES else "chacha20-poly1305"

    @property
    def allowed_ips(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The inner addresses that may go to and come from this peer."""
        return _networks(self.ipv6, self.ipv4)


@lru_cache(maxsize=MAX_PEERS)
def _networks(ipv6: IPv6Address, ipv4: IPv4Address | None) -> tuple[IPv4Network | IPv6Network, ...]:
    own = IPv6Network(ipv6)
    return (own,) if ipv4 is None else (own, IPv4Network(ipv4))


class PeerTable:
    """Peers by tunnel key, and by everything else that a person or a packet names them by."""

    def __init__(self) -> None:
        self._by_tunnel_key: dict[bytes, Peer] = {}
        self._by_number: dict[int, Peer] = {}
        self._next_number = 1
        self.changes = 0
        """How often a peer came or went."""

    def __len__(self) -> int:
        return len(self._by_tunnel_key)

    def __contains__(self, tunnel_key: bytes) -> bool:
        return tunnel_key in self._by_tunnel_key

    def all(self) -> list[Peer]:
        """Every peer, by name and then by id."""
        return sorted(self._by_tunnel_key.values(), key=lambda peer: (peer.name, peer.id))

    def connected(self) -> list[Peer]:
        return [peer for peer in self.all() if peer.state is PeerState.CONNECTED]

    def add(
        self,
        *,
        tunnel_key: bytes,
        node_key: bytes | None,
        id: str,  # noqa: A002 - the field's own name
        name: str,
        ipv4: IPv4Address | None,
        ipv6: IPv6Address,
    ) -> Peer | None:
        """A new peer in state CONNECTING, or None when the table holds ``MAX_PEERS`` already."""
        if len(self._by_tunnel_key) >= MAX_PEERS:
            return None
        peer = Peer(tunnel_key, node_key, id, name, ipv4, ipv6, self._next_number)
        self._next_number += 1
        self.changes += 1
        self._by_tunnel_key[tunnel_key] = peer
        self._by_number[peer.number] = peer
        return peer

    def remove(self, peer: Peer) -> None:
        del self._by_tunnel_key[peer.tunnel_key]
        del self._by_number[peer.number]
        self.changes += 1

    def by_tunnel_key(self, tunnel_key: bytes) -> Peer | None:
        return self._by_tunnel_key.get(tunnel_key)

    def by_number(self, number: int) -> Peer | None:
        return self._by_number.get(number)

    def find(self, text: str) -> Peer:
        """The one peer that a person means by a name, the start of an id, or an overlay address.

        Raises NotFoundError when there is none or more than one, and says how to name it exactly.
        """
        text = text.strip().lower()
        matches = [peer for peer in self.all() if peer.name == text]
        if not matches:
            try:
                address = ip_address(text)
            except ValueError:
                matches = [peer for peer in self.all() if text and peer.id.startswith(text)]
            else:
                matches = [peer for peer in self.all() if address in (peer.ipv4, peer.ipv6)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            choices = ", ".join(f"{peer.id} ({peer.ipv4 or peer.ipv6})" for peer in matches[:5])
            raise NotFoundError(f"{text!r} means {len(matches)} peers: {choices}; use an id or an address")
        raise NotFoundError(f"no peer is called {text!r}: `dhtvpn peers` lists names, ids and addresses")
