"""What a node remembers on disk: DHT contacts, and the peers of its network.

Neither is an identity: a damaged file is copied beside itself, a warning is logged, and the node starts
without. Both files are JSON, written atomically, readable by their owner only.
"""

import ipaddress
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dhtvpn.discovery.directory import MAX_ENVELOPE
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DamagedStateError, SystemRefusedError
from dhtvpn.files import keep_copy, read_json, write_json
from dhtvpn.membership.addresses import MAX_ATTEMPTS

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_CONTACTS = 200
"""Contacts kept; a bootstrap asks sixteen at a time and needs eight."""

MAX_PEERS = 256
"""Peers kept: four times the members that are all connected to each other."""

MAX_ENDPOINTS = 8
"""Last good endpoints kept per peer, the latest first."""

MAX_NAME = 63
VERSION = 1


@dataclass(frozen=True, slots=True)
class RememberedPeer:
    """One member of the network as we last knew it.

    ``endpoints``: where its tunnel last worked, the latest first. ``last_seen``: unix seconds.
    ``tunnel_timestamp``: the greatest TAI64N of its handshakes (12 octets), so that a restart accepts no
    replay. ``sequence``: of its newest record. ``ipv4_attempt`` and ``ipv4_since``: its claim to an overlay
    address (membership.addresses.Claim). ``envelope``: that record as published, or None.
    """

    node_key: bytes
    name: str
    endpoints: tuple[Endpoint, ...] = ()
    last_seen: float = 0.0
    tunnel_timestamp: bytes | None = None
    sequence: int = 0
    ipv4_attempt: int = 0
    ipv4_since: int = 0
    envelope: bytes | None = None


class RememberedContacts:
    """DHT contacts in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Endpoint]:
        """Best first, as they were saved; empty when there is no file or it is damaged."""
        return _load(self._path, "contacts", _endpoint)[:MAX_CONTACTS]

    def save(self, contacts: Iterable[Endpoint]) -> None:
        """Replace the file. Raises SystemRefusedError (disk full, read-only)."""
        texts = [_endpoint_json(endpoint) for endpoint in list(contacts)[:MAX_CONTACTS]]
        write_json(self._path, {"version": VERSION, "contacts": texts})


class RememberedPeers:
    """Peers of one network in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[bytes, RememberedPeer]:
        """By node key, the one seen last first; empty when there is no file or it is damaged."""
        peers = _load(self._path, "peers", _peer)
        return {peer.node_key: peer for peer in _latest(peers)}

    def save(self, peers: Iterable[RememberedPeer]) -> None:
        """Replace the file; past MAX_PEERS those seen longest ago are left out. Raises SystemRefusedError."""
        write_json(self._path, {"version": VERSION, "peers": [_peer_json(peer) for peer in _latest(peers)]})


def _load(path: Path, field: str, parse: Callable[[Any], T]) -> list[T]:
    try:
        content = read_json(path)
        if content is None:
            return []
        if content.get("version") != VERSION or not isinstance(content.get(field), list):
            raise DamagedStateError(f"{path} is damaged (no list of {field})")
        return [parse(item) for item in content[field]]
    except SystemRefusedError as error:
        log.warning("%s: starting without remembered %s", error, field)
    except (DamagedStateError, ValueError, TypeError, KeyError) as error:
        _keep(path, field, error)
    return []


def _keep(path: Path, field: str, error: Exception) -> None:
    try:
        copy = keep_copy(path)
    except SystemRefusedError as refused:
        log.warning("%s is damaged and %s: starting without remembered %s", path, refused, field)
        return
    log.warning("%s is damaged (%s), copied to %s: starting without remembered %s", path, error, copy, field)


def _endpoint_json(endpoint: Endpoint) -> list[Any]:
    return [endpoint.host, endpoint.port]


def _endpoint(value: Any) -> Endpoint:
    """Raises ValueError or TypeError."""
    host, port = value
    if not isinstance(host, str) or not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError("no endpoint")
    return Endpoint.unpack(ipaddress.ip_address(host).packed + port.to_bytes(2, "big"))


def _latest(peers: Iterable[RememberedPeer]) -> list[RememberedPeer]:
    return sorted(peers, key=lambda peer: (-peer.last_seen, peer.node_key))[:MAX_PEERS]


def _peer_json(peer: RememberedPeer) -> dict[str, Any]:
    return {
        "node_key": peer.node_key.hex(),
        "name": peer.name,
        "endpoints": [_endpoint_json(endpoint) for endpoint in peer.endpoints[:MAX_ENDPOINTS]],
        "last_seen": peer.last_seen,
        "tunnel_timestamp": peer.tunnel_timestamp.hex() if peer.tunnel_timestamp is not None else None,
        "sequence": peer.sequence,
        "ipv4_attempt": peer.ipv4_attempt,
        "ipv4_since": peer.ipv4_since,
        "envelope": peer.envelope.hex() if peer.envelope is not None else None,
    }


def _peer(value: Any) -> RememberedPeer:
    """Raises ValueError, TypeError or KeyError."""
    name, last_seen, sequence = value["name"], value["last_seen"], value["sequence"]
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise ValueError("name")
    if isinstance(last_seen, bool) or not isinstance(last_seen, int | float) or not 0 <= last_seen < 1e12:
        raise ValueError("last_seen")
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not 0 <= sequence < 1 << 64:
        raise ValueError("sequence")
    return RememberedPeer(
        node_key=_hex(value["node_key"], 32),
        name=name,
        endpoints=tuple(_endpoint(item) for item in value["endpoints"])[:MAX_ENDPOINTS],
        last_seen=float(last_seen),
        tunnel_timestamp=_optional_hex(value["tunnel_timestamp"], 12, 12),
        sequence=sequence,
        ipv4_attempt=_count(value["ipv4_attempt"], MAX_ATTEMPTS),
        ipv4_since=_count(value["ipv4_since"], 1 << 40),
        envelope=_optional_hex(value["envelope"], 0, MAX_ENVELOPE),
    )


def _count(value: Any, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise ValueError("count")
    return value


def _hex(text: Any, length: int) -> bytes:
    octets = bytes.fromhex(text)
    if len(octets) != length:
        raise ValueError("length")
    return octets


def _optional_hex(text: Any, shortest: int, longest: int) -> bytes | None:
    if text is None:
        return None
    octets = bytes.fromhex(text)
    if not shortest <= len(octets) <= longest:
        raise ValueError("length")
    return octets
