"""The public BitTorrent DHT as a source of one node: its session, and what it tells of our own port.

Nothing of it is loaded, and nobody is contacted, unless the user has chosen it.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import socket
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from dhtvpn.discovery.mainline import MainlineDirectory
from dhtvpn.discovery.mainline_session import MainlineSession
from dhtvpn.discovery.remembered import RememberedContacts
from dhtvpn.discovery.sources import Condition
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError, TimedOutError
from dhtvpn.nat.krpc_pings import KrpcPings
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.reflexive import Survey, survey
from dhtvpn.node.bootstrap import resolve
from dhtvpn.node.config import NodeConfig
from dhtvpn.records.topics import NetworkTopics

log = logging.getLogger(__name__)

PUBLIC_ROUTERS: Final = (
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
    "dht.libtorrent.org:25401",
)
"""Public hosts that answer newcomers. They are asked only where the user has chosen mainline."""

LOOK_S: Final = 30.0
"""How often the machine's addresses are compared, and the nodes are saved when there are new ones."""

HOLD_S: Final = 25.0
"""A node of the DHT is pinged over our own port this often: NATs forget a mapping after 30 s (RFC 4787,
section 4.3 asks for two minutes), and peers are told the one that we have."""

FIRST_NODES_S: Final = 5.0
"""How long a survey waits for the first nodes of the DHT."""

PING_TIMEOUT_S: Final = 2.0


class Mainline:
    """One node's way into mainline. :meth:`open` may fail and be called again; ``close`` of the directory
    that it returns ends everything."""

    def __init__(
        self,
        config: NodeConfig,
        port: UdpPort,
        topics: NetworkTopics,
        drops: Drops,
        relaxed: Callable[[], bool] = lambda: False,
    ) -> None:
        """``relaxed``: see MainlineDirectory."""
        self._port, self._topics, self._drops = port, topics, drops
        self._relaxed = relaxed
        self._names = config.mainline_routers or PUBLIC_ROUTERS
        self._remembered = RememberedContacts(config.network_directory / "mainline.json")
        self._pings = KrpcPings(port)
        self._session: MainlineSession | None = None
        self._opened = asyncio.Event()
        self._routers: list[Endpoint] = []

    async def open(self) -> MainlineDirectory:
        """Raises SystemRefusedError: libtorrent is missing, no router has an address, no network."""
        families = frozenset(self._port.families)
        self._routers = await resolve(self._names, families)
        known = [node for node in self._remembered.load() if (6 if node.is_ipv6 else 4) in families]
        if not self._routers and not known:
            raise SystemRefusedError(
                f"mainline: none of {', '.join(self._names)} has an address: is there a network, and are "
                "names resolved? Others can be given with --mainline-router HOST:PORT"
            )
        listen = _addresses_towards([*self._routers, *known])
        if not listen:
            raise SystemRefusedError("mainline: there is no route to any of its nodes: is there a network?")
        session = await MainlineSession.open(listen, self._routers, known, drops=self._drops)
        self._session = session
        self._opened.set()
        tasks = [asyncio.create_task(loop) for loop in (self._look(session), self._hold_mapping(session))]

        async def end_tasks() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        return MainlineDirectory(
            session,
            self._topics.by_dht_key,
            condition=partial(_condition, session),
            on_close=(end_tasks, session.close),
            drops=self._drops,
            relaxed=self._relaxed,
        )

    async def survey(self, own_addresses: Collection[str]) -> Survey:
        """What nodes of the DHT see of our own port; without answers where there are none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_NODES_S):
                await self._opened.wait()
                if self._session is not None:
                    await self._session.has_nodes.wait()
        nodes = list(self._session.nodes) if self._session is not None else []
        random.shuffle(nodes)
        servers = [*nodes, *self._routers]
        return await survey(self._port, servers, host_addresses=own_addresses, ask=self._ask)

    async def _ask(self, _: UdpPort, server: Endpoint, timeout_s: float) -> Endpoint:
        return await self._pings.ask(server, timeout_s)

    async def _look(self, session: MainlineSession) -> None:
        saved: set[Endpoint] = set()
        while True:
            await asyncio.sleep(LOOK_S)
            addresses = _addresses_towards([*self._routers, *session.nodes])
            if addresses:
                session.listen(addresses)
            if set(session.nodes) - saved:
                saved = set(session.nodes)
                with contextlib.suppress(SystemRefusedError):  # the node's own saving says it
                    self._remembered.save(session.nodes)

    async def _hold_mapping(self, session: MainlineSession) -> None:
        for number in itertools.count():
            await asyncio.sleep(HOLD_S)
            for family in self._port.families:
                nodes = [node for node in session.nodes if node.is_ipv6 == (family == 6)]
                if nodes:
                    with contextlib.suppress(TimedOutError):
                        await self._pings.ask(nodes[number % len(nodes)], PING_TIMEOUT_S)


def _condition(session: MainlineSession) -> Condition:
    count = len(session.nodes)
    if not count and session.refused:
        return Condition(False, session.refused)
    return Condition(count > 0, f"{count} node{'' if count == 1 else 's'} known")


def _addresses_towards(nodes: Sequence[Endpoint]) -> list[str]:
    """For each family the address that packets to the first of ``nodes`` leave from. Sends nothing."""
    found: dict[int, str] = {}
    for node in nodes:
        family = socket.AF_INET6 if node.is_ipv6 else socket.AF_INET
        if family in found:
            continue
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((node.host, node.port))
                found[family] = Endpoint.from_socket(probe.getsockname()).host
        except OSError:
            continue
    return list(found.values())
