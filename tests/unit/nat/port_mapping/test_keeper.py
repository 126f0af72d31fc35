"""One mapping's life on a gateway in memory, in virtual time: chosen, renewed, lost, given back."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from fake_gateway import GATEWAY, GATEWAY6, PORT, FakeGateway, answer, description, silent, ssdp_answer
from virtual_time import run

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.port_mapping import natpmp_messages, pcp_messages
from dhtvpn.nat.port_mapping.keeper import Keeper
from dhtvpn.nat.port_mapping.natpmp import NatPmp
from dhtvpn.nat.port_mapping.pcp import Pcp
from dhtvpn.nat.port_mapping.terms import LIFETIME_S, Gateway, Method
from dhtvpn.nat.port_mapping.upnp import Upnp

NONCE = bytes(range(12))
EXTERNAL = Endpoint("198.18.0.1", PORT)


class Bench:
    """A keeper that is running against a gateway."""

    def __init__(self, gateway: Gateway = GATEWAY, only: tuple[str, ...] = ()) -> None:
        self.router = FakeGateway()
        self.drops = Drops()
        self.changes = 0
        self.only = only
        self.at = gateway
        self.keeper = Keeper(gateway, self.methods, changed=self._changed, fraction=lambda: 0.5)
        self.task: asyncio.Task[None] | None = None

    def methods(self) -> list[Method]:
        now = asyncio.get_running_loop().time
        made: dict[str, Callable[[], Method]] = {
            "pcp": lambda: Pcp(
                self.at, PORT, self.router.port_channel("pcp"), nonce=NONCE, drops=self.drops, now=now
            ),
            "nat-pmp": lambda: NatPmp(PORT, self.router.port_channel("natpmp"), drops=self.drops, now=now),
            "upnp": lambda: Upnp(
                self.at,
                PORT,
                self.router.port_channel("ssdp"),
                self.router.fetch,
                drops=self.drops,
                random_bytes=lambda size: b"\x12" * size,
            ),
        }
        return [make() for name, make in made.items() if not self.only or name in self.only]

    def _changed(self) -> None:
        self.changes += 1

    async def settle(self, duration_s: float = 5.0) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self.keeper.run())
        await asyncio.sleep(duration_s)
        if self.task.done():
            self.task.result()

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.keeper.release()
        self.keeper.close()

    def sent(self, protocol: str) -> int:
        return sum(name == protocol for name, _ in self.router.requests)


def on_bench(test: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def scenario() -> None:
        bench = Bench(**options)
        await test(bench)
        await bench.stop()
        assert bench.router.open_sockets == 0

    run(scenario(), give_up_s=1e6)


Scenario = Callable[[Bench], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
def test_who_leaves_while_the_gateway_is_asked_takes_the_mapping_back(protocol: str) -> None:
    async def scenario() -> None:
        bench = Bench(only=(protocol,))
        await bench.settle(1.5 * bench.router.delay_s)
        assert bench.router.mappings and bench.keeper.granted is None, "the answer is on the way"
        await bench.stop()
        assert bench.router.mappings == {} and bench.router.open_sockets == 0

    run(scenario())


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_each_protocol_maps_renews_and_gives_back(protocol: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(1.0)
        assert bench.keeper.granted is not None and bench.keeper.granted.external == EXTERNAL
        assert bench.keeper.protocol == protocol
        assert bench.router.mappings == {PORT: (str(GATEWAY.own), LIFETIME_S)}
        assert bench.keeper.lifetime_left_s == pytest.approx(LIFETIME_S, abs=2)
        await bench.settle(LIFETIME_S * 0.6)
        assert bench.keeper.lifetime_left_s == pytest.approx(LIFETIME_S, abs=LIFETIME_S * 0.1), "renewed"
        assert bench.changes == 1, "and nobody is told of it"
        await bench.stop()
        assert bench.router.mappings == {}
        assert bench.keeper.granted is None

    on_bench(scenario, only=(protocol,))


def test_the_best_protocol_is_chosen_and_only_one_asked_for_a_mapping() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(1.0)
        assert bench.keeper.protocol == "pcp"
        mapping = [data for name, data in bench.router.requests if name == "natpmp" and len(data) == 12]
        assert not mapping
        assert not [data for _, data in bench.router.requests if b"PortMapping" in data]

    on_bench(scenario)


def test_a_protocol_that_is_silent_costs_half_a_second_and_one_that_is_refused_nothing() -> None:
    async def refused(bench: Bench) -> None:
        bench.router.pcp = bench.router.natpmp = None
        await bench.settle(0.1)
        assert bench.keeper.protocol == "upnp"

    async def quiet(bench: Bench) -> None:
        bench.router.pcp = bench.router.natpmp = silent
        await bench.settle(0.45)
        assert bench.keeper.protocol is None
        await bench.settle(0.15)
        assert bench.keeper.protocol == "upnp"

    on_bench(refused)
    on_bench(quiet)


def test_a_gateway_that_speaks_only_natpmp_is_known_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.pcp = bench.router.natpmp_answers
        await bench.settle(0.1)
        assert bench.keeper.protocol == "nat-pmp"
        assert bench.drops.as_dict() == {}

    on_bench(scenario)


def test_a_gateway_with_nothing_is_asked_ever_less_often() -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.pcp = bench.router.natpmp = bench.router.ssdp = silent
        await bench.settle(5)
        assert bench.keeper.detail == "pcp: no answer; nat-pmp: no answer; upnp: no answer"
        assert not bench.keeper.double_nat and bench.router.open_sockets == 0
        await bench.settle(24 * 3600)
        searches = bench.sent("pcp") / 4
        assert 45 <= searches <= 55
        before = len(bench.router.requests)
        bench.keeper.look_again()
        await bench.settle(1)
        assert len(bench.router.requests) > before, "a network change ends the wait"
        assert bench.changes == 1

    on_bench(scenario)


def test_a_gateway_that_restarts_and_says_so_is_asked_again_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(100)
        bench.router.reboot()
        bench.keeper.heard(bench.router.pcp_header(0, 0, 0))
        await bench.settle(0.1)
        assert bench.router.mappings == {PORT: (str(GATEWAY.own), LIFETIME_S)}

    on_bench(scenario, only=("pcp",))


def test_forged_announcements_cost_one_renewal_in_five_seconds() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(100)
        before = len(bench.router.requests)
        for number in range(1000):
            bench.keeper.heard(struct.pack("!BBBBII12x", 2, 0x80, 0, 0, 0, number % 7))
            bench.keeper.heard(b"\x00" * (number % 60))
            await bench.settle(0.01)
        assert len(bench.router.requests) - before <= 3

    on_bench(scenario, only=("pcp",))


def test_a_natpmp_gateway_announces_another_address() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(100)
        bench.router.external = "198.18.0.9"
        bench.keeper.heard(bench.router.natpmp_address())
        await bench.settle(0.1)
        assert bench.keeper.granted is not None
        assert bench.keeper.granted.external == Endpoint("198.18.0.9", PORT)
        assert bench.changes == 2

    on_bench(scenario, only=("nat-pmp",))


def test_without_an_answer_the_mapping_stands_until_it_runs_out_and_is_searched_anew() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(10)
        bench.router.pcp = silent
        await bench.settle(LIFETIME_S * 0.9)
        assert bench.keeper.granted is not None
        await bench.settle(LIFETIME_S * 0.2)
        assert bench.keeper.granted is None and bench.changes == 2
        bench.router.pcp = bench.router.pcp_answers
        await bench.settle(2000)
        assert bench.keeper.granted is not None and bench.changes == 3

    on_bench(scenario, only=("pcp",))


def test_after_a_kill_the_mapping_is_taken_up_under_the_same_nonce() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(1)
        again = Bench(only=("pcp",))
        again.router = bench.router
        await again.settle(1)
        assert again.keeper.granted is not None
        await again.stop()

    on_bench(scenario, only=("pcp",))


def test_a_pinhole_in_an_ipv6_firewall() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(1)
        assert bench.keeper.granted is not None
        assert bench.keeper.granted.external == Endpoint("2001:db8::10", PORT)
        assert bench.router.mappings[PORT][0] == "2001:db8::10"

    on_bench(scenario, only=("pcp",), gateway=GATEWAY6)


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
@pytest.mark.parametrize(
    "address", ["192.168.0.2", "100.64.3.4", "10.1.1.1", "0.0.0.0", "127.0.0.1", "239.1.1.1"]
)
def test_a_private_external_address_is_double_nat_and_nothing_is_left_behind(
    protocol: str, address: str
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.external = address
        await bench.settle(5)
        assert bench.keeper.granted is None and bench.keeper.double_nat
        assert address in bench.keeper.detail
        assert bench.router.mappings == {}
        assert bench.drops.as_dict() == {"port_mapping.external_address": 1}

    on_bench(scenario, only=(protocol,))


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_an_address_that_turns_private_ends_the_mapping(protocol: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.settle(5)
        bench.router.external = "10.0.0.9"
        await bench.settle(LIFETIME_S)
        assert bench.keeper.granted is None and bench.keeper.double_nat
        assert bench.router.mappings == {}

    on_bench(scenario, only=(protocol,))


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_success_with_port_0_is_no_success(protocol: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.external_port = 0
        await bench.settle(5)
        assert bench.keeper.granted is None
        assert "nothing that could be used" in bench.keeper.detail
        assert bench.drops.as_dict() == {"port_mapping.nonsense": 1}

    on_bench(scenario, only=(protocol,))


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
@pytest.mark.parametrize(("lifetime", "renewals"), [(0, 0), (1, 240), (600, 12), (2**32 - 1, 6)])
def test_a_lying_lifetime(protocol: str, lifetime: int, renewals: int) -> None:
    """Neither a flood of renewals nor one that never comes, within an hour."""

    async def scenario(bench: Bench) -> None:
        bench.router.granted_lifetime = lifetime
        await bench.settle(5)
        assert (bench.keeper.granted is None) == (lifetime == 0)
        before = bench.sent(protocol.replace("-", ""))
        await bench.settle(3600)
        sent = bench.sent(protocol.replace("-", "")) - before
        each = 1 if protocol == "pcp" else 2
        assert renewals * each * 0.8 <= sent <= max(20, renewals * each * 1.1)

    on_bench(scenario, only=(protocol,))


BROKEN: dict[str, Callable[[FakeGateway, bytes], list[bytes]]] = {
    "garbage": lambda router, request: [b"\xff" * 60],
    "nothing in it": lambda router, request: [b""],
    "endless": lambda router, request: [b"\x02\x81" + bytes(58)] * 500,
    "huge": lambda router, request: [bytes(2048)],
    "echo": lambda router, request: [request],
    "wrong version": lambda router, request: [b"\x07" + request[1:] + bytes(60)],
    "another nonce": lambda router, request: [
        data[:24] + b"\x99" * 12 + data[36:] for data in router.pcp_answers(request) if len(data) > 24
    ],
    "cut": lambda router, request: [data[:-3] for data in router.pcp_answers(request)],
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_gateway_is_dropped_counted_and_left_alone(how: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.pcp = bench.router.natpmp = lambda request: BROKEN[how](bench.router, request)
        bench.router.ssdp = lambda request: [b"\xff" * 700, *BROKEN[how](bench.router, request)]
        await bench.settle(20)
        assert bench.keeper.granted is None and bench.keeper.detail
        assert bench.drops.total() > 0
        assert len(bench.router.requests) < 40
        assert bench.router.open_sockets == 0
        await bench.settle(24 * 3600)
        assert len(bench.router.requests) < 1500

    on_bench(scenario)


@pytest.mark.parametrize("result", [1, 2, 3, 4, 8, 77])
def test_a_refusal_is_told_and_the_next_protocol_gets_its_turn(result: int) -> None:
    async def scenario(bench: Bench) -> None:
        def refuse(request: bytes) -> list[bytes]:
            body = request[24:60]
            return [bench.router.pcp_header(request[1], result if body else 0, 2**31) + body]

        bench.router.pcp = refuse
        bench.router.natpmp = lambda request: [struct.pack("!BBHI", 0, 0x80 | request[1], result, 9)]
        bench.router.ssdp = silent
        await bench.settle(5)
        pcp_name = pcp_messages.RESULTS.get(result, f"result {result}")
        natpmp_name = natpmp_messages.RESULTS.get(result, f"result {result}")
        assert bench.keeper.detail == (
            f"pcp: the gateway says {pcp_name}; nat-pmp: the gateway says {natpmp_name}; upnp: no answer"
        )
        bench.router.ssdp = bench.router.ssdp_answers
        await bench.settle(60)
        assert bench.keeper.protocol == "upnp"

    on_bench(scenario)


def test_upnp_version_1_with_conflicts_and_permanent_leases_only() -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.igd_version = 1
        bench.router.faults["AddPortMapping"] = [718, 725]
        await bench.settle(2)
        other = 49152 + 0x1212 % 16384
        assert bench.keeper.granted is not None
        assert bench.keeper.granted.external == Endpoint("198.18.0.1", other)
        assert bench.router.mappings == {other: (str(GATEWAY.own), 0)}
        await bench.stop()
        assert bench.router.mappings == {}

    on_bench(scenario, only=("upnp",))


def test_a_second_version_without_its_own_call() -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.faults["AddAnyPortMapping"] = [401]
        await bench.settle(2)
        assert bench.router.mappings == {PORT: (str(GATEWAY.own), LIFETIME_S)}

    on_bench(scenario, only=("upnp",))


def test_a_gateway_that_refuses_every_port_is_left_alone() -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.igd_version = 1
        bench.router.faults["AddPortMapping"] = [718] * 100
        await bench.settle(5)
        assert bench.keeper.detail == "upnp: the gateway says error 718"
        assert len(bench.router.faults["AddPortMapping"]) >= 96

    on_bench(scenario, only=("upnp",))


HOSTILE_WEB: dict[str, bytes] = {
    "not HTTP": b"\x00" * 3000,
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3000,
    "a gigabyte": b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n" + b"x" * 100_000,
    "longer than it may be": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000,
    "endless chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 70_000,
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://192.168.1.1:5000/x\r\nContent-Length: 0\r\n\r\n",
    "cut": answer(200, description(1))[:-10],
    "no XML": answer(200, b"<html><body>login</body>"),
    "entities": answer(
        200, b'<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><root>&b;</root>'
    ),
    "elsewhere": answer(200, description(1, "http://192.0.2.66/ctl/IPConn")),
    "based elsewhere": answer(200, description(1, more="<URLBase>http://192.0.2.66/</URLBase>")),
    "no service": answer(200, b"<root/>"),
}


@pytest.mark.parametrize("how", HOSTILE_WEB)
def test_a_hostile_web_server_is_bounded_and_followed_nowhere(how: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.web = lambda request: HOSTILE_WEB[how]
        await bench.settle(20)
        assert bench.keeper.granted is None
        assert bench.keeper.detail.startswith("upnp: it")
        assert sum(name == "http" for name, _ in bench.router.requests) <= 4

    on_bench(scenario, only=("upnp",))


def test_a_web_server_that_never_ends_is_given_up() -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.web_hangs = True
        await bench.settle(20)
        assert bench.keeper.detail == "upnp: its web server is too slow"
        assert bench.drops.as_dict()["port_mapping.http_timeout"] == 1

    on_bench(scenario, only=("upnp",))


@pytest.mark.parametrize(
    "location",
    [
        "http://192.0.2.66:5000/rootDesc.xml",
        "https://192.168.1.1:5000/rootDesc.xml",
        "http://192.168.1.1@192.0.2.66/",
        "http://192.168.1.1.example.net/",
        "http://192.168.1.1:0/",
        "http://192.168.1.1:99999/",
        "http://192.168.1.1/a b",
        "file:///etc/passwd",
        "",
    ],
)
def test_a_location_elsewhere_is_not_fetched(location: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.ssdp = lambda request: [ssdp_answer(location)]
        await bench.settle(20)
        assert bench.keeper.granted is None
        assert bench.sent("http") == 0
        assert bench.drops.as_dict()["port_mapping.upnp_url"] >= 1

    on_bench(scenario, only=("upnp",))


def test_a_slow_gateway_is_waited_for_but_leaving_is_not() -> None:
    async def scenario(bench: Bench) -> None:
        bench.router.delay_s = 0.7
        await bench.settle(20)
        assert bench.keeper.granted is not None
        bench.router.pcp = silent
        began = asyncio.get_running_loop().time()
        await bench.stop()
        assert asyncio.get_running_loop().time() - began < 1.0

    on_bench(scenario, only=("pcp",))
