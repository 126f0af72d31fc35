"""What this machine itself has to offer: addresses, routes, a TUN device, the right to use it."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dhtvpn.errors import SystemRefusedError
from dhtvpn.membership.addresses import ipv4_network, ipv6_network
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.netcheck.report import Machine, Overlap
from dhtvpn.system import links
from dhtvpn.system.privileges import has_net_admin

TUN_DEVICE: Final = Path("/dev/net/tun")


@dataclass(frozen=True)
class Facts:
    """``addresses`` by family 4 and 6; ``default_routes``: families that have one."""

    machine: Machine
    addresses: dict[int, tuple[str, ...]]
    default_routes: frozenset[int]


async def look(networks: Sequence[tuple[str, NetworkId]], exclude_interfaces: Sequence[str]) -> Facts:
    """``networks``: those known here, by name. ``exclude_interfaces``: of nodes that run now.
    Raises SystemRefusedError."""
    facts = await links.network_facts(exclude_interfaces)
    neighbours = await links.local_links(exclude_interfaces)
    families = {socket.AF_INET: 4, socket.AF_INET6: 6}
    return Facts(
        Machine(
            tun_device=TUN_DEVICE.exists(),
            net_admin=has_net_admin(),
            lan_interfaces=tuple(name for _, name, _, _ in neighbours),
            overlaps=await _overlaps(networks, exclude_interfaces),
        ),
        {
            family: tuple(str(address) for address in facts.addresses if address.version == family)
            for family in (4, 6)
        },
        frozenset(families[socket.AddressFamily(family)] for family, _, _ in facts.default_routes),
    )


async def _overlaps(
    networks: Sequence[tuple[str, NetworkId]], exclude_interfaces: Sequence[str]
) -> tuple[Overlap, ...]:
    found = []
    for name, network_id in networks:
        for overlay in (ipv4_network(network_id), ipv6_network(network_id)):
            try:
                routes = await links.routes_overlapping(overlay, exclude_interfaces)
            except SystemRefusedError:
                continue
            found += [Overlap(name, str(overlay), route) for route in routes]
    return tuple(found)
