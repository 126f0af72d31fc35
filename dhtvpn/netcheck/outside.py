"""How strangers see this machine in one address family: RFC 5780's questions, with DHT nodes as servers."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DhtVpnError, TimedOutError
from dhtvpn.nat.filtering import Filtering, find_filtering
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.port_mapping.external import is_public
from dhtvpn.nat.reflexive import FamilySurvey, Mapping, ask, judge
from dhtvpn.nat.stun_messages import binding_request
from dhtvpn.netcheck.report import Outside

MAX_ASKED: Final = 12
"""Nodes asked at once: of those remembered many may be gone."""
ASK_S: Final = 2.0
SOFT_TIMEOUT_S: Final = 0.5
"""After two have answered the others get this long; the slow ones tell nothing new."""
MORE_S: Final = 1.2
"""How long DHT nodes that are found meanwhile are waited for, where fewer than two have answered."""
FILTER_SERVERS: Final = 2
HAIRPIN_S, HAIRPIN_TRIES = 0.6, 3
"""For each of two ways."""
WITNESSES: Final = 2
"""Nodes outside that it takes to tell the mapping."""


class Asking:
    """Answers of one family: who saw us where, and how fast the fastest was."""

    def __init__(self, port: UdpPort, hosts: Collection[str]) -> None:
        self._port, self._hosts = port, hosts
        self.own = {Endpoint(host, port.port) for host in hosts}
        self.answers: dict[Endpoint, Endpoint] = {}
        self.asked: dict[str, None] = {}
        """Hosts, in the order of asking."""
        self.rtt_s: float | None = None

    @property
    def outside(self) -> list[Endpoint]:
        """Nodes on the other side of our NAT, if there is one: those who see us elsewhere, else all."""
        beyond = [server for server, seen in self.answers.items() if seen not in self.own]
        return beyond or list(self.answers)

    @property
    def so_far(self) -> Outside:
        """Who was asked, and who answered."""
        rtt_ms = None if self.rtt_s is None else round(self.rtt_s * 1000, 1)
        return Outside(len(self.asked), len(self.answers), rtt_ms)

    def judge(self) -> FamilySurvey:
        """What all answers together tell."""
        order = list(self.asked)
        answers = sorted(self.answers.items(), key=lambda answer: order.index(answer[0].host))
        return judge(dict(answers), self._hosts, self._port.port)

    async def ask(self, servers: Iterable[Endpoint], timeout_s: float) -> None:
        """Those whose address was not asked before, all at once."""
        chosen: list[Endpoint] = []
        for server in servers:
            if server.host not in self.asked and len(chosen) < MAX_ASKED:
                self.asked[server.host] = None
                chosen.append(server)
        pending = {asyncio.create_task(self._ask(server, timeout_s)) for server in chosen}
        tasks = set(pending)
        try:
            while pending:
                enough = len(self.answers) >= WITNESSES
                done, pending = await asyncio.wait(
                    pending,
                    timeout=SOFT_TIMEOUT_S if enough else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, server: Endpoint, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self.answers[server] = await ask(self._port, server, timeout_s)
        except TimedOutError:
            return
        rtt_s = loop.time() - began
        self.rtt_s = rtt_s if self.rtt_s is None else min(self.rtt_s, rtt_s)


async def look(
    port: UdpPort,
    servers: Sequence[Endpoint],
    *,
    hosts: Collection[str],
    more: Callable[[], Awaitable[Sequence[Endpoint]]],
    second_port: Callable[[], Awaitable[UdpPort]],
    measure_size: Callable[[Endpoint], Coroutine[Any, Any, int | None]],
) -> Outside:
    """Everything about one family. ``servers`` are of that family, ``hosts`` this machine's addresses in it;
    ``more``: DHT nodes that were found meanwhile; ``second_port``: another port of this machine, which is
    ours to close. Never raises for what servers do."""
    asking = Asking(port, hosts)
    await asking.ask(servers, ASK_S)
    if not asking.answers:
        return asking.so_far
    sizes = asyncio.create_task(measure_size(asking.outside[0]))
    try:
        if len(asking.outside) < WITNESSES or set(asking.answers.values()) <= asking.own:
            await asking.ask(await _in_time(more()), MORE_S)
        found = asking.judge()
        seen = asking.answers[asking.outside[0]]
        if not any(is_public(ip_address(endpoint.host)) for endpoint in found.public_endpoints):
            # only nodes on our own side of a NAT have answered: that tells nothing of what is outside
            return replace(asking.so_far, path_mtu=await sizes)
        filtering, hairpinning = await asyncio.gather(
            _filtering(port, asking.outside),
            _hairpinning(port, asking.outside[0], seen, second_port)
            if found.mapping is not Mapping.NONE
            else _not_known(),
        )
        return replace(
            asking.so_far,
            mapping=found.mapping,
            ports_in_order=found.in_order,
            filtering=filtering,
            hairpinning=hairpinning,
            public_endpoints=found.public_endpoints,
            path_mtu=await sizes,
        )
    finally:
        sizes.cancel()
        await asyncio.gather(sizes, return_exceptions=True)


async def _in_time(more: Awaitable[Sequence[Endpoint]]) -> Sequence[Endpoint]:
    try:
        return await asyncio.wait_for(more, MORE_S)
    except TimeoutError:
        return ()


async def _filtering(port: UdpPort, servers: Sequence[Endpoint]) -> Filtering:
    """Of several servers, because old ones do not know the question. Whoever got in got in."""
    found = await asyncio.gather(*(find_filtering(port, server) for server in servers[:FILTER_SERVERS]))
    known = [each for each in found if each is not Filtering.UNKNOWN]
    if Filtering.NOT_BY_PORT in known:
        return Filtering.NOT_BY_PORT
    return known[0] if known else Filtering.UNKNOWN


async def _hairpinning(
    port: UdpPort, server: Endpoint, seen: Endpoint, second_port: Callable[[], Awaitable[UdpPort]]
) -> bool | None:
    """Whether our port's public endpoint, and a second one's, reach each other through the NAT (RFC 5780
    section 4.5). One sends after the other: a NAT that filters there, too, is open by then, and one that
    tracks flows would take two at once for two halves of one."""
    try:
        second = await second_port()
    except DhtVpnError:
        return None
    try:
        second_seen = await ask(second, server, HAIRPIN_S)
        return await _turned_round(second, seen) or await _turned_round(port, second_seen)
    except TimedOutError:
        return None
    finally:
        second.close()


async def _turned_round(port: UdpPort, there: Endpoint) -> bool:
    """Whether a Binding request there is answered, from whatever port: a NAT whose mapping depends on the
    destination answers from another one."""
    came = asyncio.Event()
    name = os.urandom(12)
    port.stun.expect(name, lambda message, source: came.set())
    try:
        for _ in range(HAIRPIN_TRIES):
            port.send(binding_request(name), there)
            with suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), HAIRPIN_S / HAIRPIN_TRIES)
                return True
        return False
    finally:
        port.stun.forget(name)


async def _not_known() -> None:
    """In place of a question that has no meaning here."""
