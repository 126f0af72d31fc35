"""What a node remembers on disk: DHT contacts, and the peers of its network.

Neither is an identity: a damaged file is copied beside itself, a warning is logged, and the node starts
without. Both files are JSON, written atomically, readable by their owner only.
"""

import ipaddress
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from dhtvpn.discovery.directory import MAX_ENVELOPE
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DamagedStateError, DecodeError, SystemRefusedError
from dhtvpn.files import keep_copy, read_json, write_json
from dhtvpn.membership.addresses import MAX_ATTEMPTS

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_CONTACTS = 200
"""Contacts kept; a bootstrap asks sixteen at a time and needs eight."""

FORGET_AFTER_S = 90 * 24 * 3600.0
"""A contact that nobody has heard of for a quarter of a year is not kept any longer."""

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


@dataclass(frozen=True, slots=True)
class RememberedContact:
    """``since``: when it was first saved, ``heard``: when it was last known to be good; unix seconds."""

    endpoint: Endpoint
    since: float
    heard: float


class RememberedContacts:
    """DHT contacts in one file, the best first: those that were good at the last save, and of them the one
    that has been there longest, for it is the likeliest to be there in a week (Kademlia paper, section 4.1);
    then those that were good before. The two families take turns, so that neither is forgotten over the
    other."""

    def __init__(self, path: Path, unix_time: Callable[[], float] = time.time) -> None:
        self._path, self._unix_time = path, unix_time
        self._known: dict[Endpoint, RememberedContact] | None = None

    def load(self) -> list[Endpoint]:
        """Best first; empty when there is no file or it is damaged."""
        contacts = _load(self._path, "contacts", _contact)[:MAX_CONTACTS]
        self._known = {contact.endpoint: contact for contact in contacts}
        return list(self._known)

    def save(self, contacts: Iterable[Endpoint]) -> None:
        """``contacts`` are good now. Replaces the file. Raises SystemRefusedError (disk full, read-only)."""
        if self._known is None:
            self.load()
        now, known = self._unix_time(), dict(self._known or {})
        for endpoint in dict.fromkeys(contacts):
            before = known.get(endpoint)
            known[endpoint] = RememberedContact(endpoint, min(before.since, now) if before else now, now)
        kept = _best(known.values(), now)
        self._known = {contact.endpoint: contact for contact in kept}
        content = [_contact_json(contact) for contact in kept]
        write_json(self._path, {"version": VERSION, "contacts": content})


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
    except (DamagedStateError, DecodeError, ValueError, TypeError, KeyError) as error:
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


def _best(contacts: Iterable[RememberedContact], now: float) -> list[RememberedContact]:
    """MAX_CONTACTS at most. A clock that was set back makes nobody immortal."""
    lately = [contact for contact in contacts if now - contact.heard < FORGET_AFTER_S]
    lately.sort(key=lambda contact: (-min(contact.heard, now), contact.since))
    families = [
        [contact for contact in lately if contact.endpoint.is_ipv6 is is_ipv6] for is_ipv6 in (False, True)
    ]
    turns = (contact for turn in zip_longest(*families) for contact in turn if contact is not None)
    return list(islice(turns, MAX_CONTACTS))


def _contact_json(contact: RememberedContact) -> list[Any]:
    return [*_endpoint_json(contact.endpoint), round(contact.since, 3), round(contact.heard, 3)]


def _contact(value: Any) -> RememberedContact:
    """Raises ValueError, TypeError or DecodeError."""
    host, port, since, heard = value
    return RememberedContact(_endpoint([host, port]), _time(since), _time(heard))


def _endpoint(value: Any) -> Endpoint:
    """Raises ValueError or TypeError, and DecodeError for an interface that may be another one by now."""
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
    """Raises ValueError, TypeError, KeyError or DecodeError."""
    name, sequence = value["name"], value["sequence"]
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise ValueError("name")
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not 0 <= sequence < 1 << 64:
        raise ValueError("sequence")
    return RememberedPeer(
        node_key=_hex(value["node_key"], 32),
        name=name,
        endpoints=tuple(_endpoint(item) for item in value["endpoints"])[:MAX_ENDPOINTS],
        last_seen=_time(value["last_seen"]),
        tunnel_timestamp=_optional_hex(value["tunnel_timestamp"], 12, 12),
        sequence=sequence,
        ipv4_attempt=_count(value["ipv4_attempt"], MAX_ATTEMPTS),
        ipv4_since=_count(value["ipv4_since"], 1 << 40),
        envelope=_optional_hex(value["envelope"], 0, MAX_ENVELOPE),
    )


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError("time")
    return float(value)


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
