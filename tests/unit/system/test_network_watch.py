"""Which netlink messages make us look, and that only a difference counts."""

import asyncio
import struct
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address

import pytest

from dhtvpn.errors import SystemRefusedError
from dhtvpn.system import network_watch
from dhtvpn.system.links import LinkLocal, NetworkFacts, default_routes
from dhtvpn.system.network_watch import NetworkWatch, concerns

NEW_LINK, DELETE_ADDRESS, NEW_ROUTE, DELETE_ROUTE, NEW_NEIGHBOUR = 16, 21, 24, 25, 28
HOME, AWAY = (NetworkFacts((ip_address(text),), frozenset()) for text in ("192.0.2.1", "192.0.2.2"))


def message(kind: int, body: bytes = bytes(12)) -> bytes:
    header = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0)
    return header + body + bytes(-len(body) % 4)


def route(kind: int, prefix_length: int) -> bytes:
    return message(kind, bytes([2, prefix_length]) + bytes(10))


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (message(NEW_LINK), True),
        (message(DELETE_ADDRESS, bytes(8)), True),
        (route(NEW_ROUTE, 0), True),
        (route(DELETE_ROUTE, 0), True),
        (route(NEW_ROUTE, 24), False),
        (message(NEW_NEIGHBOUR), False),
        (message(NEW_NEIGHBOUR, bytes(5)) + route(NEW_ROUTE, 32) + message(NEW_LINK), True),
        (b"", False),
        (bytes(3), False),
        (bytes(16), False),
        (struct.pack("=IHHII", 16, NEW_ROUTE, 0, 0, 0), True),
    ],
)
def test_what_concerns_us(messages: bytes, expected: bool) -> None:
    assert concerns(messages) is expected


def test_default_routes_are_those_of_other_interfaces_in_the_main_table() -> None:
    up = 0x41
    links = [
        {"index": 1, "IFLA_IFNAME": "lo", "flags": up | 8},
        {"index": 2, "IFLA_IFNAME": "eth0", "flags": up},
        {"index": 3, "IFLA_IFNAME": "dv0", "flags": up},
    ]

    def entry(index: int, gateway: str, dst_len: int = 0, table: int = 254) -> dict[str, object]:
        return {
            "family": 2,
            "dst_len": dst_len,
            "table": table,
            "RTA_OIF": index,
            "RTA_GATEWAY": gateway,
        }

    routes = [
        entry(2, "192.0.2.1"),
        entry(2, "192.0.2.9", dst_len=24),
        entry(3, "192.0.2.2"),
        entry(1, "192.0.2.3"),
        entry(2, "192.0.2.4", table=7),
    ]
    assert list(default_routes(links, routes, ("dv0",))) == [(2, 2, "192.0.2.1")]


async def test_only_a_difference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's messages are played by writing into the watch's own event."""
    answers = [HOME, HOME, AWAY]
    told: list[NetworkFacts] = []
    looked, changed = asyncio.Event(), asyncio.Event()

    def note(facts: NetworkFacts) -> None:
        told.append(facts)
        changed.set()

    async def read(excluded: Collection[str]) -> NetworkFacts:
        assert tuple(excluded) == ("dv0",)
        if len(answers) == 1:
            looked.set()
        return answers.pop(0)

    monkeypatch.setattr(network_watch, "SETTLE_S", 0.0)
    watch = NetworkWatch(note, exclude_interfaces=("dv0",), read=read)
    task = asyncio.create_task(watch.run())
    try:
        while not looked.is_set():
            watch._heard.set()
            await asyncio.sleep(0)
        await changed.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert told == [AWAY] and watch.facts == AWAY


async def test_a_look_that_the_kernel_refuses_is_made_again_though_no_other_message_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[NetworkFacts | None] = [HOME, None, AWAY]
    first, changed = asyncio.Event(), asyncio.Event()

    async def read(excluded: Collection[str]) -> NetworkFacts:
        first.set()
        answer = answers.pop(0)
        if answer is None:
            raise SystemRefusedError("busy")
        return answer

    monkeypatch.setattr(network_watch, "SETTLE_S", 0.0)
    monkeypatch.setattr(network_watch, "AGAIN_S", 0.01)
    watch = NetworkWatch(lambda _: changed.set(), read=read)
    task = asyncio.create_task(watch.run())
    try:
        await first.wait()
        watch._heard.set()
        async with asyncio.timeout(5):
            await changed.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert watch.facts == AWAY


def test_no_address_is_no_network() -> None:
    assert HOME.usable and not NetworkFacts((), frozenset()).usable
    near = LinkLocal(2, IPv6Address("fe80::1"), True)
    assert NetworkFacts((), frozenset(), (near,)).usable
