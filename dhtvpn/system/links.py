"""Links, addresses and routes of this machine, by netlink (pyroute2).

We add addresses to our own TUN device, and routes for single peers to it (``routes``), nothing else: the
route to the overlay subnet comes with the address, and all of it goes with the device. The rest here only
reads.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import Any, Final, NamedTuple

from pyroute2.iproute.linux import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dhtvpn.errors import SystemRefusedError

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

_IFF_UP, _IFF_LOOPBACK, _IFF_POINTOPOINT, _IFF_RUNNING = 0x1, 0x8, 0x10, 0x40  # linux/if.h
_IFF_MULTICAST: Final = 0x1000
_MULTICAST_LINK: Final = _IFF_UP | _IFF_RUNNING | _IFF_MULTICAST
_IFA_F_NODAD, _IFA_F_OPTIMISTIC, _IFA_F_DADFAILED = 0x02, 0x04, 0x08  # linux/if_addr.h
_IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x20, 0x40
_UNUSABLE: Final = _IFA_F_OPTIMISTIC | _IFA_F_DADFAILED | _IFA_F_DEPRECATED | _IFA_F_TENTATIVE
_RT_TABLE_MAIN: Final = 254  # linux/rtnetlink.h
_NETLINK_BUSY_TRIES: Final = 5  # a dump is refused while another runs on the machine (EBUSY, EINTR)
_NETLINK_BUSY_WAIT_S: Final = 0.05
_GSO_HEADERS: Final = (
    330  # bytes that TCP leaves free of the limit: MAX_TCP_HEADER + 1 (net/tcp.h), rounded up
)


def interface_exists(name: str) -> bool:
    """Whether this machine has an interface of that name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def has_ipv6(disabled: str | None = None) -> bool:
    """Whether IPv6 works here: compiled in, and not turned off for all interfaces.

    ``disabled`` stands in for the text of net.ipv6.conf.all.disable_ipv6.
    """
    if disabled is None:
        try:
            disabled = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text(encoding="ascii")
        except OSError:
            return False
    if disabled.strip() != "0":
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM):
            return True
    except OSError:
        return False


async def configure(name: str, addresses: Sequence[Interface], mtu: int) -> None:
    """Give our interface ``name`` its MTU (bytes) and its addresses with their prefixes, and bring it up.

    The prefix routes come with the addresses. IPv6 addresses skip duplicate address detection: they are
    derived from keys, and nobody else is on the link. Raises SystemRefusedError.
    """
    try:
        async with AsyncIPRoute() as netlink:
            index = interface_index(name)
            await netlink.link("set", index=index, mtu=mtu, state="up")
            for address in addresses:
                await _add(netlink, index, address)
    except (NetlinkError, OSError) as error:
        raise refused(f"cannot set up the interface {name}", error) from error


async def limit_super_packets(name: str, ipv4_payload: int, ipv6_payload: int) -> None:
    """Have our interface ``name`` get TCP super-packets of at most so many payload bytes.

    A kernel that cannot be told goes on with its own limit, 64 KB: that is no error.
    """
    with contextlib.suppress(NetlinkError, OSError):
        async with AsyncIPRoute() as netlink:
            index = interface_index(name)
            # the first also sets the second (IPv4's), which stays away from what older kernels know
            await netlink.link("set", index=index, gso_max_size=ipv6_payload + _GSO_HEADERS)
            await netlink.link("set", index=index, gso_ipv4_max_size=ipv4_payload + _GSO_HEADERS)


async def add_address(name: str, address: Interface) -> None:
    """Add one address to our interface ``name``; one that is there stays. Raises SystemRefusedError."""
    try:
        async with AsyncIPRoute() as netlink:
            await _add(netlink, interface_index(name), address)
    except (NetlinkError, OSError) as error:
        raise refused(f"cannot add the address {address} to {name}", error) from error


async def remove_address(name: str, address: Interface) -> None:
    """Take one address from our interface ``name``; one that is not there is no error.

    Raises SystemRefusedError.
    """
    try:
        async with AsyncIPRoute() as netlink:
            await netlink.addr(
                "del",
                index=interface_index(name),
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
            )
    except (NetlinkError, OSError) as error:
        if _code(error) == errno.EADDRNOTAVAIL:
            return
        raise refused(f"cannot take the address {address} from {name}", error) from error


async def host_addresses(exclude_interfaces: Collection[str] = ()) -> list[Address]:
    """Addresses of this machine that can be host candidates, without doubles, in the kernel's order.

    Left out: loopback, link-local, tentative and deprecated addresses, links that are down, every TUN device,
    and everything on ``exclude_interfaces``. Raises SystemRefusedError.
    """
    links, addresses, _ = await _dump("links", "addresses")
    return list(usable_addresses(links, addresses, exclude_interfaces))


class LinkLocal(NamedTuple):
    """An IPv6 address of this machine that holds on one link only, behind which there may be neighbours."""

    interface: int
    """Its index: the zone of the address."""
    address: IPv6Address
    alone: bool
    """The interface has no other IPv6 address."""


async def link_local_addresses(exclude_interfaces: Collection[str] = ()) -> list[LinkLocal]:
    """One of each interface of :func:`local_links` that has any; before others those that do not show the
    interface's MAC address. Raises SystemRefusedError."""
    links, addresses, _ = await _dump("links", "addresses")
    return usable_link_locals(links, addresses, exclude_interfaces)


@dataclass(frozen=True)
class NetworkFacts:
    """What a node stands on: another value means that paths may have to be made anew."""

    addresses: tuple[Address, ...]
    """Those of :func:`host_addresses`."""
    default_routes: frozenset[tuple[int, int | None, str | None]]
    """Address family, interface index and gateway of each."""
    link_locals: tuple[LinkLocal, ...] = ()
    """Those of :func:`link_local_addresses`, where they are of use and there are no other addresses: beside
    others they come a second or two later (duplicate address detection), and are no other network."""

    @property
    def usable(self) -> bool:
        """Whether anything can be reached at all."""
        return bool(self.addresses or self.link_locals)


async def network_facts(
    exclude_interfaces: Collection[str] = (), *, link_local: bool = False
) -> NetworkFacts:
    """What there is now. ``link_local``: addresses of one link alone are of use too. Raises
    SystemRefusedError."""
    links, addresses, routes = await _dump("links", "addresses", "routes")
    found = tuple(usable_addresses(links, addresses, exclude_interfaces))
    wanted = link_local and not found
    return NetworkFacts(
        found,
        frozenset(default_routes(links, routes, exclude_interfaces)),
        tuple(usable_link_locals(links, addresses, exclude_interfaces)) if wanted else (),
    )


async def local_links(exclude_interfaces: Collection[str] = ()) -> list[tuple[int, str, bool, bool]]:
    """Interfaces behind which there may be neighbours: index, name, whether it has an IPv4 address, and an
    IPv6 one. Left out: what is down, cannot do multicast or has two ends only, as every tunnel, loopback,
    and ``exclude_interfaces``. Raises SystemRefusedError."""
    links, addresses, _ = await _dump("links", "addresses")
    return list(links_with_neighbours(links, addresses, exclude_interfaces))


async def routes_overlapping(network: Network, exclude_interfaces: Collection[str] = ()) -> list[str]:
    """Routes of the main table that share addresses with ``network``, as text for a person.

    Default routes do not count, nor do routes over ``exclude_interfaces``. Raises SystemRefusedError.
    """
    links, _, routes = await _dump("links", "routes")
    return list(colliding_routes(links, routes, network, exclude_interfaces))


async def tables() -> tuple[list[Any], list[Any], list[Any]]:
    """Netlink messages of every link, address and route. Raises SystemRefusedError."""
    return await _dump("links", "addresses", "routes")


def usable_addresses(
    links: Iterable[Mapping[str, Any]], addresses: Iterable[Mapping[str, Any]], exclude: Collection[str]
) -> Iterator[Address]:
    """:func:`host_addresses` on netlink messages (or dictionaries with the same keys)."""
    wanted = {
        link["index"]
        for link in links
        if link["flags"] & _IFF_UP
        and link["flags"] & _IFF_RUNNING
        and not link["flags"] & _IFF_LOOPBACK
        and link.get("IFLA_IFNAME") not in exclude
        and not _is_tun(link)
    }
    seen = set()
    for message in addresses:
        # IFA_LOCAL is ours; on a point-to-point link IFA_ADDRESS is the other side's
        text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
        flags = message.get("IFA_FLAGS") or message["flags"]
        if message["index"] not in wanted or flags & _UNUSABLE or text is None:
            continue
        address = ip_address(text)
        if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
            continue
        if address not in seen:
            seen.add(address)
            yield address


def links_with_neighbours(
    links: Iterable[Mapping[str, Any]], addresses: Iterable[Mapping[str, Any]], exclude: Collection[str]
) -> Iterator[tuple[int, str, bool, bool]]:
    """:func:`local_links` on netlink messages (or dictionaries with the same keys)."""
    families: dict[int, set[int]] = {}
    for message in addresses:
        if not (message.get("IFA_FLAGS") or message["flags"]) & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED):
            families.setdefault(message["index"], set()).add(message["family"])
    for link in links:
        flags, name = link["flags"], link.get("IFLA_IFNAME")
        usable = flags & _MULTICAST_LINK == _MULTICAST_LINK and not flags & (_IFF_LOOPBACK | _IFF_POINTOPOINT)
        if not usable or name is None or name in exclude or _is_tun(link):
            continue
        has = families.get(link["index"], set())
        yield link["index"], name, socket.AF_INET in has, socket.AF_INET6 in has


def usable_link_locals(
    links: Iterable[Mapping[str, Any]], addresses: Iterable[Mapping[str, Any]], exclude: Collection[str]
) -> list[LinkLocal]:
    """:func:`link_local_addresses` on netlink messages (or dictionaries with the same keys)."""
    links, addresses = list(links), list(addresses)
    near = {number for number, _, _, _ in links_with_neighbours(links, addresses, exclude)}
    others, found = set(), list[tuple[int, IPv6Address]]()
    for message in addresses:
        index, flags = message["index"], message.get("IFA_FLAGS") or message["flags"]
        address = ip_address(message.get("IFA_LOCAL") or message.get("IFA_ADDRESS") or "0.0.0.0")  # noqa: S104
        if index not in near or flags & _UNUSABLE or not isinstance(address, IPv6Address):
            continue
        if address.is_link_local:
            found.append((index, address))
        else:
            others.add(index)
    found.sort(key=lambda item: _shows_mac(item[1]))
    of_each = dict(reversed(found))  # the first of each interface
    return [
        LinkLocal(index, address, index not in others)
        for index, address in found
        if of_each[index] == address
    ]


def _shows_mac(address: IPv6Address) -> bool:
    """Whether the interface identifier is made of a MAC address (RFC 4291 appendix A)."""
    return address.packed[11:13] == b"\xff\xfe"


def default_routes(
    links: Iterable[Mapping[str, Any]], routes: Iterable[Mapping[str, Any]], exclude: Collection[str]
) -> Iterator[tuple[int, int | None, str | None]]:
    """Those of the main table, not over ``exclude``, loopback (what the kernel refuses) or a TUN device, from
    netlink messages (or dictionaries with the same keys)."""
    skipped = {
        link["index"]
        for link in links
        if link.get("IFLA_IFNAME") in exclude or link["flags"] & _IFF_LOOPBACK or _is_tun(link)
    }
    for route in routes:
        table = route.get("RTA_TABLE") or route["table"]
        if table != _RT_TABLE_MAIN or route["dst_len"] or route.get("RTA_OIF") in skipped:
            continue
        yield route["family"], route.get("RTA_OIF"), route.get("RTA_GATEWAY")


def _is_tun(link: Mapping[str, Any]) -> bool:
    """Another tunnel's device: its addresses would tell one network's members about another network, and
    a path through it would be a tunnel in a tunnel."""
    information = link.get("IFLA_LINKINFO")
    return information is not None and information.get("IFLA_INFO_KIND") == "tun"


def colliding_routes(
    links: Iterable[Mapping[str, Any]],
    routes: Iterable[Mapping[str, Any]],
    network: Network,
    exclude: Collection[str],
) -> Iterator[str]:
    """:func:`routes_overlapping` on netlink messages (or dictionaries with the same keys)."""
    names = {link["index"]: link.get("IFLA_IFNAME", "?") for link in links}
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    for route in routes:
        table = route.get("RTA_TABLE") or route["table"]
        target = route.get("RTA_DST")
        if table != _RT_TABLE_MAIN or route["family"] != family or not route["dst_len"] or target is None:
            continue
        there = ip_network(f"{target}/{route['dst_len']}", strict=False)
        name = names.get(route.get("RTA_OIF"))
        if name in exclude or not _overlap(there, network):
            continue
        yield f"{there} dev {name}" if name is not None else str(there)


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.overlaps(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.overlaps(other)
    return False


async def _dump(*wanted: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Links, addresses and routes: those named, empty lists for the rest."""
    last: Exception | None = None
    for _ in range(_NETLINK_BUSY_TRIES):
        try:
            async with AsyncIPRoute() as netlink:
                links = [m async for m in await netlink.get_links()] if "links" in wanted else []
                addresses = [m async for m in await netlink.get_addr()] if "addresses" in wanted else []
                routes = [m async for m in await netlink.get_routes()] if "routes" in wanted else []
                return links, addresses, routes
        except (NetlinkError, OSError) as error:
            last = error
            if _code(error) not in (errno.EBUSY, errno.EINTR):
                break
            await asyncio.sleep(_NETLINK_BUSY_WAIT_S)
    assert last is not None  # noqa: S101 - the loop only ends here after an error
    raise refused("cannot read this machine's network settings", last) from last


async def _add(netlink: Any, index: int, address: Interface) -> None:
    extra = {"IFA_FLAGS": _IFA_F_NODAD} if address.version == 6 else {}
    try:
        await netlink.addr(
            "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **extra
        )
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            return
        if address.version == 6 and error.code in (errno.EACCES, errno.EPERM, errno.EOPNOTSUPP):
            raise SystemRefusedError(
                f"cannot add the address {address}: IPv6 is turned off on this machine "
                "(sysctl net.ipv6.conf.default.disable_ipv6)"
            ) from error
        raise


def interface_index(name: str) -> int:
    """What netlink calls our interface ``name``. Raises OSError where there is none."""
    return socket.if_nametoindex(name)


def _code(error: Exception) -> int | None:
    return error.code if isinstance(error, NetlinkError) else getattr(error, "errno", None)


def refused(what: str, error: Exception) -> SystemRefusedError:
    """The sentence for a person that fits what netlink answered to ``what``."""
    code = _code(error)
    if code in (errno.EPERM, errno.EACCES):
        return SystemRefusedError(f"{what}: no permission; run the command as root (sudo)")
    text = getattr(error, "strerror", None) or (error.args[-1] if error.args else "unknown reason")
    return SystemRefusedError(f"{what}: {text}")
