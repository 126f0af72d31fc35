"""The MTU of our interface, and host routes on it that carry the MTU of one peer's path.

A route's MTU reaches the local TCP at once, for connections that are open and for new ones. The routes go
with the interface: nothing has to be taken back when a node ends.
"""

import errno
from collections.abc import Collection, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from pyroute2.iproute.linux import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dhtvpn.system.links import interface_index, refused

Network = IPv4Network | IPv6Network

_IPV6_MIN_MTU: Final = 1280  # RFC 8200 section 5; a route of less is ignored
_IPV6_TCP_HEADERS: Final = 60  # bytes
_SCOPE_LINK: Final = 253  # linux/rtnetlink.h
_GONE: Final = frozenset((errno.ESRCH, errno.ENOENT, errno.ENODEV))
_NO_IPV6: Final = frozenset((errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT))
"""What the kernel answers where IPv6 is turned off, for the machine or for the interface."""


async def set_mtus(
    name: str, mtu: int | None, routes: Mapping[Network, int], obsolete: Collection[Network] = ()
) -> None:
    """Give our interface ``name`` its MTU (None: leave it) and each of ``routes`` its own, both in bytes of
    a packet, and take the ``obsolete`` routes away.

    An IPv6 route below 1,280 gets 1,280, and tells the other side by its segment size what fits.
    Where this machine has no IPv6, such routes are left out. Raises SystemRefusedError.
    """
    try:
        async with AsyncIPRoute() as netlink:
            index = interface_index(name)
            if mtu is not None:
                await netlink.link("set", index=index, mtu=mtu)
            for network in obsolete:
                await _change(netlink, "del", network, _route(index, network))
            for network, route_mtu in routes.items():
                await _change(netlink, "replace", network, _route(index, network, route_mtu))
    except (NetlinkError, OSError) as error:
        raise refused(f"cannot set the MTU of {name}", error) from error


def _route(index: int, network: Network, mtu: int | None = None) -> dict[str, Any]:
    route: dict[str, Any] = {"dst": str(network), "oif": index}
    if network.version == 4:
        route["scope"] = _SCOPE_LINK  # part of what tells a route from another
    if mtu is not None:
        narrow = network.version == 6 and mtu < _IPV6_MIN_MTU
        segment = {"mtu": _IPV6_MIN_MTU, "advmss": mtu - _IPV6_TCP_HEADERS}
        route["metrics"] = segment if narrow else {"mtu": mtu}
    return route


async def _change(netlink: Any, command: str, network: Network, route: dict[str, Any]) -> None:
    try:
        await netlink.route(command, **route)
    except NetlinkError as error:
        gone = command == "del" and error.code in _GONE
        if not gone and not (network.version == 6 and error.code in _NO_IPV6):
            raise
