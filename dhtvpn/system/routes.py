"""The MTU of our interface, and host routes on it that carry the MTU of one peer's path.

A route's MTU reaches the local TCP at once, for connections that are open and for new ones. The routes go
with the interface: nothing has to be taken back when a node ends.
"""

import errno
from collections.abc import Collection, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dhtvpn.system.links import has_ipv6, interface_index, refused

Network = IPv4Network | IPv6Network

_IPV6_MIN_MTU: Final = 1280  # RFC 8200 section 5; a route of less is ignored
_IPV6_TCP_HEADERS: Final = 60  # bytes
_SCOPE_LINK: Final = 253  # linux/rtnetlink.h
_GONE: Final = frozenset((errno.ESRCH, errno.ENOENT, errno.ENODEV))


async def set_mtus(
    name: str, mtu: int, routes: Mapping[Network, int], obsolete: Collection[Network] = ()
) -> None:
    """Give our interface ``name`` its MTU and each of ``routes`` its own, both in bytes of a packet, and
    take the ``obsolete`` routes away.

    An IPv6 route below 1,280 gets 1,280, and tells the other side by its segment size what fits.
    Networks of a family that this machine does not have are left out. Raises SystemRefusedError.
    """
    without_ipv6 = not has_ipv6()
    try:
        async with AsyncIPRoute() as netlink:
            index = interface_index(name)
            await netlink.link("set", index=index, mtu=mtu)
            for network in obsolete:
                if network.version == 4 or not without_ipv6:
                    await _delete(netlink, index, network)
            for network, route_mtu in routes.items():
                if network.version == 4 or not without_ipv6:
                    await netlink.route("replace", **_route(index, network, route_mtu))
    except (NetlinkError, OSError) as error:
        raise refused(f"cannot set the MTU of {name}", error) from error


def _route(index: int, network: Network, mtu: int) -> dict[str, Any]:
    route: dict[str, Any] = {"dst": str(network), "oif": index, "metrics": {"mtu": mtu}}
    if network.version == 4:
        return {**route, "scope": _SCOPE_LINK}
    if mtu < _IPV6_MIN_MTU:
        route["metrics"] = {"mtu": _IPV6_MIN_MTU, "advmss": mtu - _IPV6_TCP_HEADERS}
    return route


async def _delete(netlink: Any, index: int, network: Network) -> None:
    try:
        await netlink.route("del", dst=str(network), oif=index)
    except NetlinkError as error:
        if error.code not in _GONE:
            raise
