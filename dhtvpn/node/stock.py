"""Stock peers: plain WireGuard clients that a person attaches to this node by hand.

They have no node and no record. This node draws a preshared key for each, gives it overlay addresses
from the hash of its key, and keeps all of it in ``stock-peers.json``.
"""

import base64
import binascii
import logging
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from dhtvpn import files
from dhtvpn.errors import DamagedStateError, NotFoundError, UsageError
from dhtvpn.identity import short_id
from dhtvpn.membership.addresses import MAX_ATTEMPTS, ipv4_address, ipv6_address
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.node.tunnels import Tunnels

log = logging.getLogger(__name__)

MAX_STOCK_PEERS = 64
KEY_SIZE = 32


@dataclass
class StockPeer:
    """One attached client and its place in the peer table."""

    peer: Peer
    preshared_key: bytes


class StockPeers:
    """The stock peers of this node, on disk and in the tunnels."""

    def __init__(
        self,
        path: Path,
        *,
        network_id: NetworkId,
        table: PeerTable,
        tunnels: Tunnels,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._path = path
        self._network_id = network_id
        self._table = table
        self._tunnels = tunnels
        self._random_bytes = random_bytes
        self._stock: dict[str, StockPeer] = {}

    def load(self, taken: set[IPv4Address]) -> None:
        """Attach those on disk. A damaged file is copied aside and reported, never lost."""
        try:
            stored = files.read_json(self._path) or {}
            entries = [
                (str(entry["name"]), _key(entry["public_key"]), _key(entry["preshared_key"]))
                for entry in stored.get("peers", [])
            ]
        except (DamagedStateError, UsageError, KeyError, TypeError) as error:
            copy = files.keep_copy(self._path)
            log.warning("%s is damaged (%s): kept as %s, no stock peer is attached", self._path, error, copy)
            return
        for name, public_key, preshared_key in entries[:MAX_STOCK_PEERS]:
            self._attach(name, public_key, preshared_key, taken)

    def add(self, name: str, public_key_base64: str, taken: set[IPv4Address]) -> StockPeer:
        """Attach a client by its base64 public key. Raises UsageError, SystemRefusedError."""
        public_key = _key(public_key_base64)
        if name in self._stock:
            raise UsageError(f"there is a stock peer called {name!r} already: remove it first")
        if public_key in self._table:
            raise UsageError("this public key belongs to a peer already")
        if len(self._stock) >= MAX_STOCK_PEERS:
            raise UsageError(f"this node has {MAX_STOCK_PEERS} stock peers, which is the most it takes")
        stock = self._attach(name, public_key, self._random_bytes(KEY_SIZE), taken)
        self._save()
        return stock

    def remove(self, name: str) -> None:
        """Detach a client. Raises NotFoundError."""
        stock = self._stock.pop(name, None)
        if stock is None:
            raise NotFoundError(f"no stock peer is called {name!r}")
        self._table.remove(stock.peer)
        self._tunnels.remove(stock.peer)
        self._save()

    def all(self) -> list[StockPeer]:
        return list(self._stock.values())

    def _attach(self, name: str, public_key: bytes, psk: bytes, taken: set[IPv4Address]) -> StockPeer:
        addresses = [ipv4_address(self._network_id, public_key, attempt) for attempt in range(MAX_ATTEMPTS)]
        free = [address for address in addresses if address not in taken]
        peer = self._table.add(
            tunnel_key=public_key,
            node_key=None,
            id=short_id(public_key),
            name=name,
            ipv4=free[0] if free else None,
            ipv6=ipv6_address(self._network_id, public_key),
        )
        if peer is None:
            raise UsageError("the peer table is full")
        stock = StockPeer(peer, psk)
        self._stock[name] = stock
        self._tunnels.add(peer, psk, None)
        return stock

    def _save(self) -> None:
        entries: list[dict[str, Any]] = [
            {
                "name": stock.peer.name,
                "public_key": base64.b64encode(stock.peer.tunnel_key).decode(),
                "preshared_key": base64.b64encode(stock.preshared_key).decode(),
            }
            for stock in self._stock.values()
        ]
        files.write_json(self._path, {"peers": entries})


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        raise UsageError("a WireGuard key is 32 bytes in base64, as `wg genkey | wg pubkey` prints it")
    return key
