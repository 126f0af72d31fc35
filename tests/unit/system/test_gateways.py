"""Which router is asked for a mapping, from the kernel's tables; the messages are dictionaries."""

from typing import Any

from dhtvpn.system import gateways

UP = 0x1 | 0x40
LINKS: list[dict[str, Any]] = [
    {"index": 2, "flags": UP, "IFLA_IFNAME": "eth0"},
    {"index": 3, "flags": UP, "IFLA_IFNAME": "wlan0"},
    {"index": 4, "flags": UP, "IFLA_IFNAME": "tun0", "IFLA_LINKINFO": {"IFLA_INFO_KIND": "tun"}},
]


def address(index: int, text: str, prefix: int) -> dict[str, Any]:
    family = 10 if ":" in text else 2
    return {"index": index, "family": family, "prefixlen": prefix, "flags": 0x80, "IFA_ADDRESS": text}


def route(gateway: str | None, index: int, metric: int | None = None, **more: Any) -> dict[str, Any]:
    family = 10 if gateway is not None and ":" in gateway else 2
    found = {"family": family, "dst_len": 0, "table": 254, "type": 1, "RTA_OIF": index} | more
    return found | {"RTA_GATEWAY": gateway, "RTA_PRIORITY": metric}


ADDRESSES = [
    address(2, "10.0.0.7", 24),
    address(2, "192.168.1.10", 24),
    address(2, "2001:db8::10", 64),
    address(2, "2001:db8::11", 64),
    address(2, "fe80::10", 64),
    address(3, "172.20.0.5", 16),
    address(4, "10.8.0.2", 24),
]


def found(*routes: dict[str, Any], exclude: tuple[str, ...] = ()) -> list[tuple[str, int, str]]:
    usable = gateways.usable_gateways(LINKS, ADDRESSES, routes, exclude)
    return [(str(gateway), index, str(own)) for gateway, index, own in usable]


def test_the_address_on_the_gateways_own_subnet() -> None:
    assert found(route("192.168.1.1", 2)) == [("192.168.1.1", 2, "192.168.1.10")]


def test_the_route_with_the_lowest_metric_that_is_no_tunnel() -> None:
    routes = [route("172.20.0.1", 3, 600), route("192.168.1.1", 2, 100), route("10.8.0.1", 4, 50)]
    assert found(*routes) == [("192.168.1.1", 2, "192.168.1.10")]
    assert found(*routes, exclude=("eth0",)) == [("172.20.0.1", 3, "172.20.0.5")]


def test_every_usable_address_of_ipv6() -> None:
    assert found(route("fe80::1", 2)) == [("fe80::1", 2, "2001:db8::10"), ("fe80::1", 2, "2001:db8::11")]


def test_routes_that_lead_to_no_router() -> None:
    assert found(route(None, 2)) == []
    assert found(route("192.168.1.1", 2, dst_len=8)) == []
    assert found(route("192.168.1.1", 2, table=100)) == []
    assert found(route("192.168.1.1", 2, type=7)) == []
    assert found(route("192.168.9.1", 9)) == []
