"""The routers of this machine's default routes, from netlink: whom to ask for a port mapping."""

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any, Final

from dhtvpn.system import links
from dhtvpn.system.links import Address

_RT_TABLE_MAIN: Final = 254  # linux/rtnetlink.h
_RTN_UNICAST: Final = 1


async def default_gateways(exclude_interfaces: Collection[str] = ()) -> list[tuple[Address, int, Address]]:
    """Gateway, its link's number, and an address of ours on that link: of the best default route of each
    family, for IPv4 the one address that is on the gateway's subnet, for IPv6 every usable one.

    Routes over tunnels, and over ``exclude_interfaces``, do not count. Raises SystemRefusedError.
    """
    return list(usable_gateways(*await links.tables(), exclude_interfaces))


def usable_gateways(
    interfaces: Iterable[Mapping[str, Any]],
    addresses: Iterable[Mapping[str, Any]],
    routes: Iterable[Mapping[str, Any]],
    exclude: Collection[str],
) -> Iterator[tuple[Address, int, Address]]:
    """:func:`default_gateways` on netlink messages (or dictionaries with the same keys)."""
    interfaces, addresses, routes = list(interfaces), list(addresses), list(routes)
    for family in (socket.AF_INET, socket.AF_INET6):
        defaults = (route for route in routes if _is_default(route, family))
        for route in sorted(defaults, key=lambda route: route.get("RTA_PRIORITY") or 0):
            gateway = ip_address(str(route.get("RTA_GATEWAY")))
            index = int(route.get("RTA_OIF") or 0)
            here = [message for message in addresses if message["index"] == index]
            usable = links.usable_addresses(interfaces, here, exclude)  # none on a tunnel
            own = [address for address in usable if address.version == gateway.version]
            if family == socket.AF_INET:
                own = sorted(own, key=lambda address: not _on_subnet(address, here, gateway))[:1]
            if own:
                yield from ((gateway, index, address) for address in own)
                break


def _is_default(route: Mapping[str, Any], family: int) -> bool:
    return (
        route["family"] == family
        and route["dst_len"] == 0
        and (route.get("RTA_TABLE") or route["table"]) == _RT_TABLE_MAIN
        and route.get("type", _RTN_UNICAST) == _RTN_UNICAST
        and route.get("RTA_GATEWAY") is not None
        and route.get("RTA_OIF") is not None
    )


def _on_subnet(address: Address, messages: Iterable[Mapping[str, Any]], gateway: Address) -> bool:
    for message in messages:
        text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
        if text == str(address):
            return gateway in ip_interface(f"{text}/{message.get('prefixlen', 32)}").network
    return False
