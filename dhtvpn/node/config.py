"""What a node is started with."""

from dataclasses import dataclass
from pathlib import Path

from dhtvpn.membership.network_id import NetworkId
from dhtvpn.networks import Cipher


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
    watch: bool = True
    """Whether storing nodes are asked to push new records; without, they are asked every other second."""
