"""What a node is started with."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from dhtvpn.choices import DEFAULT_DISCOVERY, OCTETS_PER_MBIT, RELAY_MBIT, Discovery
from dhtvpn.errors import UsageError
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.networks import Cipher

ROSTER_SIZE = 64
"""Members up to which everyone knows everyone (docs/adr/0011-large-networks.md)."""


def roster_size() -> int:
    """ROSTER_SIZE, or less where the environment says so, for trials of large networks with few machines.
    Raises UsageError."""
    text = os.environ.get("DHTVPN_ROSTER_SIZE", str(ROSTER_SIZE))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= ROSTER_SIZE:
        raise UsageError(f"DHTVPN_ROSTER_SIZE must be a number from 1 to {ROSTER_SIZE}, not {text!r}")
    return int(text)


@dataclass(frozen=True)
class NodeConfig:
    """One node of one network on this machine. ``None`` means: choose."""

    state_dir: Path
    network_directory: Path
    """Holds this network's identity, claim and memory; 0700."""
    network: str
    """The network's name on this machine."""
    network_id: NetworkId
    hostname: str
    bootstrap: tuple[str, ...]
    """``HOST:PORT`` as typed; HOST may be a name."""
    port: int | None
    interface: str | None
    cipher: Cipher
    socket_path: Path
    peers: tuple[str, ...] = ()
    """Hints: ``HOST:PORT`` of members, as typed."""
    discovery: tuple[Discovery, ...] = DEFAULT_DISCOVERY
    mainline_routers: tuple[str, ...] = ()
    """``HOST:PORT`` of those who are asked first in the BitTorrent DHT; empty: the public ones."""
    roster_size: int = field(default_factory=roster_size)
    """Members that are all connected to each other; beyond that they are looked up."""
    port_mapping: bool = True
    """Whether the router is asked to forward the UDP port."""
    relay_octets_per_s: int = RELAY_MBIT * OCTETS_PER_MBIT
    """What is relayed for other members; 0: nothing."""
    watch: bool = True
    """Whether storing nodes are asked to push new records; without, they are asked every other second."""
