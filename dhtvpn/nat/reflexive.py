"""Which endpoint do others see us at, and what does the NAT do (RFC 5780, RFC 4787's words)?

The servers are DHT nodes. They are strangers: what they say becomes a candidate, which is then checked.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aioice import stun

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, TimedOutError
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.port_prediction import in_order
from dhtvpn.nat.stun_messages import binding_request, mapped_endpoint
from dhtvpn.nat.stun_transaction import StunTransaction

log = logging.getLogger(__name__)

SERVERS_PER_FAMILY = 4
"""How many are asked at once. Ours: two must answer to tell the mapping, and some are dead."""

SOFT_TIMEOUT_S = 0.3
"""After the first answer of a family the others get this long. Ours: a start must not wait for the dead."""

SURVEY_TIMEOUT_S = 2.0


class Mapping(Enum):
    """How our endpoint looks from outside (RFC 4787 section 4.1)."""

    NONE = "none"
    """No NAT: others see an address of this machine."""
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    """The same public endpoint whomever we talk to."""
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    """Another public endpoint for each peer ("symmetric")."""
    UNKNOWN = "unknown"
    """Fewer than two servers answered."""


@dataclass(frozen=True)
class FamilySurvey:
    """What the servers of one address family said. ``answered`` counts servers, ``witnesses`` are those
    outside. ``in_order``: a dependent mapping's ports rise one after the other; None: that is not known."""

    mapping: Mapping = Mapping.UNKNOWN
    public_endpoints: tuple[Endpoint, ...] = ()
    answered: int = 0
    witnesses: tuple[Endpoint, ...] = ()
    in_order: bool | None = None


@dataclass(frozen=True)
class Survey:
    """``mapping`` is IPv4's where that is known, else IPv6's. ``by_family`` has keys 4 and 6."""

    mapping: Mapping
    public_endpoints: list[Endpoint]
    by_family: dict[int, FamilySurvey] = field(default_factory=dict)


async def ask(port: UdpPort, server: Endpoint, timeout_s: float) -> Endpoint:
    """The endpoint at which ``server`` sees this port. Raises TimedOutError.

    A response that is no answer (an error, no mapped address, another source or transaction) is
    dropped, and the question repeated until the time is over.
    """
    transaction = StunTransaction(
        port.stun,
        port.send,
        binding_request(os.urandom(12)),
        server,
        drops=port.drops,
        accept=_has_mapped_endpoint,
    )
    return mapped_endpoint(await transaction.run(timeout_s))


def _has_mapped_endpoint(message: stun.Message) -> bool:
    try:
        mapped_endpoint(message)
    except DecodeError:
        return False
    return True


Asker = Callable[[UdpPort, Endpoint, float], Coroutine[Any, Any, Endpoint]]
"""What :func:`ask` is. Raises TimedOutError."""


async def survey(
    port: UdpPort,
    servers: Iterable[Endpoint],
    *,
    host_addresses: Collection[str] = (),
    timeout_s: float = SURVEY_TIMEOUT_S,
    ask: Asker = ask,
) -> Survey:
    """Ask up to SERVERS_PER_FAMILY servers of each family at once.

    ``host_addresses`` are this machine's own; nobody is asked over a family without any. ``ask`` is how a
    server is asked. Returns at most
    SOFT_TIMEOUT_S after a family's first answer, and after ``timeout_s`` in any case. Never raises for what
    servers do or fail to do.
    """
    own_families = {6 if ":" in address else 4 for address in host_addresses} or set(port.families)
    reachable = [server for server in servers if (6 if server.is_ipv6 else 4) in own_families]
    chosen = choose_servers(reachable, port.families)
    results = await asyncio.gather(
        *(_ask_family(port, chosen[family], timeout_s, ask) for family in chosen),
    )
    by_family = {
        family: judge(answers, host_addresses, port.port)
        for family, answers in zip(chosen, results, strict=True)
    }
    known = [part.mapping for part in by_family.values() if part.mapping is not Mapping.UNKNOWN]
    return Survey(
        mapping=known[0] if known else Mapping.UNKNOWN,
        public_endpoints=[endpoint for part in by_family.values() for endpoint in part.public_endpoints],
        by_family=by_family,
    )


def choose_servers(servers: Iterable[Endpoint], families: Iterable[int]) -> dict[int, list[Endpoint]]:
    """Pure: the first few of each family, no address twice: two ports of one server tell less."""
    chosen: dict[int, list[Endpoint]] = {family: [] for family in sorted(families)}
    hosts: set[str] = set()
    for server in servers:
        listed = chosen.get(6 if server.is_ipv6 else 4)
        if listed is not None and server.host not in hosts and len(listed) < SERVERS_PER_FAMILY:
            hosts.add(server.host)
            listed.append(server)
    return chosen


def judge(answers: dict[Endpoint, Endpoint], host_addresses: Collection[str], port: int) -> FamilySurvey:
    """Pure: the mapping of one family, from server -> what it saw, in the order of asking.

    A server that sees one of our own addresses is on our side of any NAT, so it says nothing about the
    NAT when another server sees something else.
    """
    ours = {Endpoint(host, port) for host in host_addresses}
    public = list(dict.fromkeys(seen for seen in answers.values() if seen not in ours))
    witnesses = tuple(server for server, seen in answers.items() if seen not in ours)
    outside = len(witnesses)
    if answers and not outside:
        mapping = Mapping.NONE
        public = list(dict.fromkeys(answers.values()))
    elif outside < 2:
        mapping = Mapping.UNKNOWN
    elif len(public) == 1:
        mapping = Mapping.ENDPOINT_INDEPENDENT
    else:
        mapping = Mapping.ADDRESS_AND_PORT_DEPENDENT
    dependent = mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT
    one_address = len({endpoint.host for endpoint in public}) == 1
    rises = in_order([endpoint.port for endpoint in public]) if dependent and one_address else None
    return FamilySurvey(mapping, tuple(public), len(answers), witnesses, rises)


async def _ask_family(
    port: UdpPort, servers: list[Endpoint], timeout_s: float, ask: Asker
) -> dict[Endpoint, Endpoint]:
    """Server -> endpoint that it saw, of those that answered in time, in the order of asking."""
    tasks = {asyncio.create_task(ask(port, server, timeout_s)): server for server in servers}
    answers: dict[Endpoint, Endpoint] = {}
    loop = asyncio.get_running_loop()
    soft_deadline: float | None = None
    pending = set(tasks)
    try:
        while pending:
            remaining = None if soft_deadline is None else max(0.0, soft_deadline - loop.time())
            done, pending = await asyncio.wait(
                pending, timeout=remaining, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done:
                try:
                    answers[tasks[task]] = task.result()
                except TimedOutError:
                    log.debug("no STUN answer from %s", tasks[task])
            if answers and soft_deadline is None:
                soft_deadline = loop.time() + SOFT_TIMEOUT_S
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {server: answers[server] for server in servers if server in answers}
