"""Whether the external address that a gateway tells can be one that strangers reach. Pure.

A gateway behind another NAT, as in a carrier's network, tells an address that only its carrier can reach.
A broken or hostile one tells anything, and peers would send their checks there.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from dhtvpn.endpoint import Endpoint

_NOT_PUBLIC: Final = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3"),
        *("::/8", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
"""Of IANA's special-purpose registries (RFC 6890) what certainly leads nobody here. The ranges for
documentation and benchmarks are not among them: they harm nobody, and laboratories use them."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether somebody on another network may reach that address."""
    return not any(address in network for network in _NOT_PUBLIC if network.version == address.version)


def contradicted(external: Endpoint, seen: Iterable[Endpoint]) -> bool:
    """Whether strangers have ``seen`` this node, in the same address family, at public addresses of which
    none is that of ``external``.

    While nobody has seen it there is nothing to compare with, and the gateway is believed.
    """
    public = {
        endpoint.host
        for endpoint in seen
        if endpoint.is_ipv6 == external.is_ipv6 and is_public(ip_address(endpoint.host))
    }
    return bool(public) and external.host not in public
