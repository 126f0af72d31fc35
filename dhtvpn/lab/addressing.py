"""Who is wired to whom, under which addresses: a topology turned into links. Pure.

Each site on the public segment has a /24 of 198.18.0.0/15 (RFC 2544, for benchmarks) and, where the
topology gives it IPv6, a /48 of 2001:db8::/32 (RFC 3849, for documentation). The public segment routes
between them, as providers do, so no two sites share a link. A LAN is a bridge inside its router.
"""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from dhtvpn.errors import UsageError
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.topology import PUBLIC_SEGMENT, Host, Router, Topology

PUBLIC_IPV4 = IPv4Network("198.18.0.0/15")
PUBLIC_IPV6 = IPv6Network("2001:db8::/32")
LAN_BRIDGE = "lan"
ROUTER_UPLINK = "wan"
HOST_UPLINK = "eth0"

_FIRST_ON_LAN = 10
"""Host part of the first machine on a LAN; the router is 1."""

_FIRST_AT_SITE, _LAST_AT_SITE = 2, 250
"""Host parts that a site's machine may have, one after the other; the public segment is 1."""


@dataclass(frozen=True)
class Link:
    """``machine``'s uplink, and the port where ``upstream`` takes it: a veth pair, or two TAP devices with
    the link emulator between them where there are ``conditions``.

    ``upstream_ipv4`` and ``upstream_ipv6`` are the addresses of the upstream port itself; None where
    the port is part of a LAN bridge, which has the gateway's address. ``delegated`` is the IPv6 prefix
    that upstream routes to ``machine``. ``hardware`` and ``upstream_hardware``: Ethernet addresses of an
    emulated line, which are known to both ends: an address request would take a round trip, or be lost.
    """

    machine: str
    interface: str
    upstream: str
    upstream_port: str
    ipv4: IPv4Interface | None
    ipv4_gateway: IPv4Address | None
    ipv6: IPv6Interface | None
    ipv6_gateway: IPv6Address | None
    upstream_ipv4: IPv4Interface | None = None
    upstream_ipv6: IPv6Interface | None = None
    delegated: IPv6Network | None = None
    conditions: Conditions | None = None
    hardware: str | None = None
    upstream_hardware: str | None = None


@dataclass(frozen=True)
class Lan:
    """A router's own addresses on its LAN bridge."""

    router: str
    ipv4: IPv4Interface
    ipv6: IPv6Interface | None


@dataclass(frozen=True)
class Plan:
    """All links and LANs of one topology."""

    links: tuple[Link, ...]
    lans: tuple[Lan, ...]

    def link(self, machine: str) -> Link:
        """The uplink of ``machine``. Raises KeyError."""
        for link in self.links:
            if link.machine == machine:
                return link
        raise KeyError(machine)

    def lan(self, router: str) -> Lan:
        """The LAN of ``router``. Raises KeyError."""
        for lan in self.lans:
            if lan.router == router:
                return lan
        raise KeyError(router)


def renumbered(link: Link) -> Link:
    """``link`` with the next IPv4 address of its site. Raises UsageError on a LAN, where all are given."""
    if link.upstream != PUBLIC_SEGMENT or link.ipv4 is None:
        raise UsageError(f"{link.machine} has no public IPv4 address that could change")
    network = link.ipv4.network
    host = int(link.ipv4.ip) - int(network.network_address)
    return replace(link, ipv4=_at(network, host + 1 if host < _LAST_AT_SITE else _FIRST_AT_SITE))


def plan(topology: Topology) -> Plan:
    """Addresses for every machine, the same ones each time."""
    lans: dict[str, Lan] = {}
    links: list[Link] = []
    on_lan: dict[str, int] = {}
    site = 0
    for number, router in enumerate(topology.routers, start=1):
        network = router.lan or IPv4Network((f"192.168.{number}.0", 24))
        lans[router.name] = Lan(router.name, _at(network, 1), None)
    for machine in topology.machines:
        if machine.behind is None:
            site += 1
            links.append(_public_link(machine, site, topology.line_of(machine)))
            delegated = links[-1].delegated
            if delegated is not None:
                lan = lans[machine.name]
                lans[machine.name] = Lan(lan.router, lan.ipv4, _at6(_lan_prefix(delegated), 1))
    for machine in topology.machines:
        if machine.behind is not None:
            position = on_lan.get(machine.behind, 0)
            on_lan[machine.behind] = position + 1
            links.append(_lan_link(machine, lans[machine.behind], position, topology.line_of(machine)))
    return Plan(tuple(links), tuple(lans.values()))


def _public_link(machine: Host | Router, site: int, conditions: Conditions | None) -> Link:
    network = IPv4Network((int(PUBLIC_IPV4.network_address) + (site << 8), 24))
    prefix = IPv6Network((int(PUBLIC_IPV6.network_address) + (site << 80), 48))
    shared = IPv6Network((prefix.network_address, 64))
    is_router = isinstance(machine, Router)
    has_ipv4 = isinstance(machine, Router) or machine.ipv4
    return Link(
        machine=machine.name,
        interface=ROUTER_UPLINK if is_router else HOST_UPLINK,
        upstream=PUBLIC_SEGMENT,
        upstream_port=f"site{site}",
        ipv4=_at(network, _FIRST_AT_SITE) if has_ipv4 else None,
        ipv4_gateway=network[1] if has_ipv4 else None,
        ipv6=_at6(shared, 2) if machine.ipv6 else None,
        ipv6_gateway=shared[1] if machine.ipv6 else None,
        upstream_ipv4=_at(network, 1) if has_ipv4 else None,
        upstream_ipv6=_at6(shared, 1) if machine.ipv6 else None,
        delegated=prefix if is_router and machine.ipv6 else None,
        conditions=conditions,
        hardware=_hardware(1, site) if conditions else None,
        upstream_hardware=_hardware(2, site) if conditions else None,
    )


def _lan_link(machine: Host | Router, lan: Lan, position: int, conditions: Conditions | None) -> Link:
    is_router = isinstance(machine, Router)
    has_ipv4 = isinstance(machine, Router) or machine.ipv4
    ipv6_lan = lan.ipv6 if machine.ipv6 else None
    return Link(
        machine=machine.name,
        interface=ROUTER_UPLINK if is_router else HOST_UPLINK,
        upstream=lan.router,
        upstream_port=f"port{position}",
        ipv4=_at(lan.ipv4.network, _FIRST_ON_LAN + position) if has_ipv4 else None,
        ipv4_gateway=lan.ipv4.ip if has_ipv4 else None,
        ipv6=_at6(ipv6_lan.network, _FIRST_ON_LAN + position) if ipv6_lan else None,
        ipv6_gateway=ipv6_lan.ip if ipv6_lan else None,
        conditions=conditions,
    )


def _hardware(side: int, site: int) -> str:
    """A locally administered Ethernet address."""
    return f"02:00:00:{side:02x}:{site >> 8:02x}:{site & 255:02x}"


def _lan_prefix(delegated: IPv6Network) -> IPv6Network:
    """The second /64 of a site's /48; the first is the link to the provider."""
    return IPv6Network((int(delegated.network_address) + (1 << 64), 64))


def _at(network: IPv4Network, host: int) -> IPv4Interface:
    return IPv4Interface((network[host], network.prefixlen))


def _at6(network: IPv6Network, host: int) -> IPv6Interface:
    return IPv6Interface((network[host], network.prefixlen))
