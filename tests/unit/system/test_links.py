"""What is picked from the kernel's tables; the messages are dictionaries with the same keys."""

from ipaddress import ip_network
from typing import Any

from dhtvpn.system import links

UP = 0x1 | 0x40


def link(index: int, name: str, flags: int = UP) -> dict[str, Any]:
    return {"index": index, "flags": flags, "IFLA_IFNAME": name}


def address(index: int, text: str, flags: int = 0x80) -> dict[str, Any]:
    return {"index": index, "flags": flags & 0xFF, "IFA_FLAGS": flags, "IFA_ADDRESS": text}


def route(
    target: str | None, interface: int | None = 2, table: int = 254, large_table: int | None = None
) -> dict[str, Any]:
    network = ip_network(target or "0.0.0.0/0")
    return {
        "family": 2 if network.version == 4 else 10,
        "dst_len": network.prefixlen,
        "table": table,
        "RTA_TABLE": large_table,
        "RTA_DST": str(network.network_address) if target else None,
        "RTA_OIF": interface,
    }


LINKS = [
    link(1, "lo", UP | 0x8),
    link(2, "eth0"),
    link(3, "down0", 0x1),
    link(4, "off0", 0x40),
    link(5, "dv0"),
]


def usable(*addresses: dict[str, Any], exclude: tuple[str, ...] = ()) -> list[str]:
    return [str(found) for found in links.usable_addresses(LINKS, addresses, exclude)]


def test_only_links_that_are_up_and_not_ours_count() -> None:
    addresses = [address(i, f"192.0.2.{i}") for i in range(1, 7)]
    assert usable(*addresses) == ["192.0.2.2", "192.0.2.5"]
    assert usable(*addresses, exclude=("dv0",)) == ["192.0.2.2"]


def test_other_tunnels_are_no_host_addresses() -> None:
    tunnel = link(2, "dhtvpn1") | {"IFLA_LINKINFO": {"IFLA_INFO_KIND": "tun"}}
    bridge = link(3, "br0") | {"IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge"}}
    addresses = [address(2, "10.7.0.1"), address(3, "192.0.2.1")]
    assert [str(a) for a in links.usable_addresses([tunnel, bridge], addresses, ())] == ["192.0.2.1"]


def test_addresses_that_may_vanish_or_reach_nobody_are_left_out() -> None:
    texts = ["127.0.0.1", "169.254.1.1", "fe80::1", "::1", "2001:db8::1", "10.0.0.1"]
    assert usable(*(address(2, text) for text in texts)) == ["2001:db8::1", "10.0.0.1"]


def test_tentative_deprecated_and_failed_addresses_are_left_out() -> None:
    flags = [0x40, 0x20, 0x08, 0x04, 0x01 | 0x20, 0x01, 0x80]
    found = usable(*(address(2, f"2001:db8::{n + 1:x}", flag) for n, flag in enumerate(flags)))
    assert found == ["2001:db8::6", "2001:db8::7"]  # temporary and current is fine


def test_our_end_of_a_point_to_point_link_counts_once() -> None:
    message = address(2, "192.0.2.254") | {"IFA_LOCAL": "192.0.2.1"}
    assert usable(message, message) == ["192.0.2.1"]


def colliding(network: str, *routes: dict[str, Any], exclude: tuple[str, ...] = ()) -> list[str]:
    return list(links.colliding_routes(LINKS, routes, ip_network(network), exclude))


def test_routes_that_overlap_either_way_are_named() -> None:
    routes = [route("10.0.0.0/8"), route("10.5.1.0/24"), route("10.6.0.0/16"), route("fd00::/8")]
    assert colliding("10.5.0.0/16", *routes) == ["10.0.0.0/8 dev eth0", "10.5.1.0/24 dev eth0"]
    assert colliding("fd00:1::/64", *routes) == ["fd00::/8 dev eth0"]


def test_default_routes_other_tables_and_ours_do_not_collide() -> None:
    routes = [route(None), route("10.5.0.0/16", table=255), route("10.5.0.0/16", table=252, large_table=5000)]
    assert colliding("10.5.0.0/16", *routes, route("10.5.0.0/16", 5), exclude=("dv0",)) == []


def test_a_route_without_a_device_is_named_too() -> None:
    assert colliding("10.5.0.0/16", route("10.0.0.0/8", None)) == ["10.0.0.0/8"]


def test_interface_exists() -> None:
    assert links.interface_exists("lo")
    assert not links.interface_exists("no-such-link0")


def test_ipv6_turned_off_is_seen() -> None:
    assert not links.has_ipv6("1\n")


def test_links_with_neighbours() -> None:
    lan, point_to_point = UP | 0x1000, UP | 0x1000 | 0x10
    found = [
        link(1, "lo", UP | 0x8 | 0x1000),
        link(2, "eth0", lan),
        link(3, "wlan0", lan),
        link(4, "ppp0", point_to_point),
        link(5, "dhtvpn0", lan),
        link(6, "tun7", lan) | {"IFLA_LINKINFO": {"IFLA_INFO_KIND": "tun"}},
        link(7, "down0", 0x1000 | 0x40),
        link(8, "deaf0", UP),
        link(9, "new0", lan),
    ]
    addresses = [
        address(2, "192.0.2.1") | {"family": 2},
        address(2, "fe80::1") | {"family": 10},
        address(3, "fe80::2") | {"family": 10},
        address(9, "fe80::3", 0x40) | {"family": 10},
    ]
    assert list(links.links_with_neighbours(found, addresses, {"dhtvpn0"})) == [
        (2, "eth0", True, True),
        (3, "wlan0", False, True),
        (9, "new0", False, False),
    ]


def link_locals(*addresses: dict[str, Any]) -> list[tuple[int, str, bool]]:
    lan = UP | 0x1000
    found = [link(2, "eth0", lan), link(3, "wlan0", lan), link(4, "ppp0", lan | 0x10), link(5, "dv0", lan)]
    told = links.usable_link_locals(found, addresses, {"dv0"})
    return [(each.interface, str(each.address), each.alone) for each in told]


def of(index: int, text: str, flags: int = 0x80) -> dict[str, Any]:
    return address(index, text, flags) | {"family": 10 if ":" in text else 2}


def test_link_locals_are_of_links_with_neighbours_one_of_each() -> None:
    assert link_locals(
        of(2, "fe80::1"),
        of(2, "fe80::2"),
        of(3, "fe80::1"),
        of(4, "fe80::4"),
        of(5, "fe80::5"),
        of(2, "10.0.0.1"),
    ) == [(2, "fe80::1", True), (3, "fe80::1", True)]
    assert link_locals(of(2, "fe80::1"), of(2, "fd00::1")) == [(2, "fe80::1", False)]
    assert link_locals(of(2, "fe80::1", 0x40), of(2, "fe80::2", 0x20), of(2, "169.254.0.1")) == []


def test_link_locals_that_show_no_mac_address_come_first() -> None:
    eui64, private = "fe80::200:5eff:fe00:5301", "fe80::9a1c:22:7be:1"
    assert link_locals(of(2, eui64), of(2, private)) == [(2, private, True)]
    assert link_locals(of(2, eui64), of(3, private)) == [(3, private, True), (2, eui64, True)]
