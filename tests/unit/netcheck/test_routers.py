"""Asking a router: what it offers, what it grants for a moment, and that it always gets it back."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
import virtual_time

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.port_mapping.terms import Gateway, Granted, RefusedError, UnusableAddressError
from dhtvpn.netcheck.report import Router
from dhtvpn.netcheck.routers import FIND_S, MAP_S, ask_router

GATEWAY = Gateway(IPv4Address("192.168.1.1"), 2, IPv4Address("192.168.1.10"))
EXTERNAL = Endpoint("198.51.100.7", 41000)


class Fake:
    """A protocol that takes its time. An exception in place of a duration is raised."""

    def __init__(self, name: str, find: float | Exception = 0.0, mapping: float | Exception = 0.0) -> None:
        self.name = name
        self._find, self._map = find, mapping
        self.asked = self.released = self.closed = False

    async def find(self) -> None:
        await _wait_or_raise(self._find)

    async def map(self) -> Granted:
        self.asked = True
        await _wait_or_raise(self._map)
        return Granted(EXTERNAL, 1200)

    def heard(self, announcement: bytes) -> bool:
        return False

    async def release(self) -> None:
        self.released = True

    def close(self) -> None:
        assert self.released
        self.closed = True


async def _wait_or_raise(what: float | Exception) -> None:
    if isinstance(what, Exception):
        raise what
    await asyncio.sleep(what)


def asked(*methods: Fake) -> tuple[Router, float]:
    """What comes of it, and the seconds that it took."""

    async def scenario() -> tuple[Router, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        return await ask_router(GATEWAY, methods), loop.time() - began

    result = virtual_time.run(scenario())
    assert all(method.closed for method in methods)
    return result


REFUSED = RefusedError("not offered")
UNUSABLE = UnusableAddressError("the gateway's own address 10.0.0.2 is not a public one")


def test_the_best_that_is_offered_maps() -> None:
    methods = [Fake("pcp", REFUSED), Fake("nat-pmp"), Fake("upnp")]
    router, _ = asked(*methods)
    assert router == Router(
        "192.168.1.1", "192.168.1.10", ("nat-pmp", "upnp"), "nat-pmp", EXTERNAL, False, ""
    )
    assert [method.asked for method in methods] == [False, True, False]


def test_the_next_one_maps_where_the_best_refuses() -> None:
    router, _ = asked(Fake("pcp", 0.0, RefusedError("NOT_AUTHORIZED")), Fake("upnp"))
    assert (router.protocol, router.external, router.detail) == ("upnp", EXTERNAL, "")


def test_who_offers_and_refuses_says_why() -> None:
    router, _ = asked(Fake("pcp", REFUSED), Fake("upnp", 0.0, RefusedError("error 606")))
    assert router.offered == ("upnp",) and router.external is None
    assert router.detail == "upnp: error 606"


def test_who_offers_nothing() -> None:
    router, _ = asked(Fake("pcp", REFUSED), Fake("upnp", RefusedError("no answer")))
    assert router.offered == () and router.detail == "pcp: not offered; upnp: no answer"


@pytest.mark.parametrize(
    "make", [lambda: Fake("nat-pmp", UNUSABLE), lambda: Fake("nat-pmp", 0.0, UNUSABLE)], ids=["find", "map"]
)
def test_a_router_behind_a_router(make: Callable[[], Fake]) -> None:
    router, _ = asked(make())
    assert router.offered == ("nat-pmp",) and router.double_nat and router.external is None
    assert router.detail == str(UNUSABLE)


def test_silence_and_slowness_end() -> None:
    router, took_s = asked(Fake("pcp", 100.0), Fake("upnp", 0.0, 100.0))
    assert router.external is None and "too long" in router.detail
    assert took_s == pytest.approx(FIND_S + MAP_S)


@pytest.mark.parametrize("after_s", [0.05, 0.15])
def test_whoever_interrupts_it_the_mapping_is_given_back(after_s: float) -> None:
    """While it searches, and while the router is making the mapping."""
    method = Fake("pcp", 0.1, 10.0)

    async def scenario() -> None:
        task = asyncio.create_task(ask_router(GATEWAY, [method]))
        await asyncio.sleep(after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    virtual_time.run(scenario())
    assert method.asked is (after_s > 0.1)
    assert method.closed
