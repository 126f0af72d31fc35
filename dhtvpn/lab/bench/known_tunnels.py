"""Every tunnel that the bench knows, and which of them one run takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dhtvpn.errors import UsageError
from dhtvpn.lab.bench import extra_tunnels
from dhtvpn.lab.bench.dhtvpn_tunnels import DhtVpn, StockPeer
from dhtvpn.lab.bench.other_tunnels import Fastd, N2n, Nebula, Tinc
from dhtvpn.lab.bench.tunnels import NoTunnel, Tunnel
from dhtvpn.lab.bench.wireguard_tunnels import WireguardGo

REFERENCE, WIRE = "wireguard-go", "none"
"""The two that others are given as ratios to."""


@dataclass
class Choice:
    """The tunnels of one run, and why others are not among them."""

    tunnels: list[Tunnel] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def built_in() -> list[Tunnel]:
    return [
        NoTunnel(),
        DhtVpn("dhtvpn-aes", "dhtvpn AES-GCM", "aes-256-gcm"),
        DhtVpn("dhtvpn-chacha", "dhtvpn ChaCha20", "chacha20-poly1305"),
        StockPeer(),
        WireguardGo(),
        Tinc(),
        N2n(),
        Nebula(),
        Fastd(),
    ]


def choose(only: Sequence[str]) -> Choice:
    """All tunnels whose programs are here, or those of ``only``. Raises UsageError for a name unknown."""
    known = built_in()
    known += extra_tunnels.from_environment([tunnel.name for tunnel in known])
    names = [tunnel.name for tunnel in known]
    for name in only:
        if name not in names:
            raise UsageError(f"there is no tunnel {name!r}: choose from {', '.join(names)}")
    choice = Choice()
    for tunnel in known:
        if only and tunnel.name not in only:
            continue
        missing = tunnel.missing()
        if missing:
            choice.left_out[tunnel.name] = f"{', '.join(missing)} not found on PATH"
        else:
            choice.tunnels.append(tunnel)
    if not choice.tunnels:
        raise UsageError(f"nothing to measure: {'; '.join(choice.left_out.values())}")
    return choice
