"""Puts a node's sources of records together, as its configuration chooses."""

import logging
import os
from contextlib import AsyncExitStack
from functools import partial

from dhtvpn.choices import Discovery
from dhtvpn.discovery.hints import HintDirectory
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.kept import KeptState
from dhtvpn.discovery.lan import LanDirectory
from dhtvpn.discovery.lan_wire import DATAGRAM_SIZE, epoch_key
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.sources import (
    LAN,
    MAINLINE,
    Source,
    Sources,
    broken_source,
    hint_source,
    kademlia_source,
    lan_source,
    late_source,
)
from dhtvpn.drops import Drops
from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat.multicast import LocalLink, MulticastPort
from dhtvpn.nat.own_address import outgoing_addresses
from dhtvpn.nat.port import UdpPort
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.mainline import Mainline
from dhtvpn.records.topics import NetworkTopics
from dhtvpn.system import links

log = logging.getLogger(__name__)


async def open_sources(
    config: NodeConfig,
    port: UdpPort,
    interface: str,
    drops: Drops,
    stack: AsyncExitStack,
    *,
    topics: NetworkTopics,
) -> Sources:
    """Make every source that is chosen, and its sockets; no datagram moves before ``Sources.start``.

    ``interface``: the overlay's own, on which nobody is looked for. The sockets are released by ``stack``.
    """
    secret_key = partial(epoch_key, config.network_id.secret)
    hints = HintDirectory(port.send_note, epoch_key=secret_key, drops=drops)
    port.on_note(hints.handle_datagram)
    sources = [hint_source(hints)]
    if Discovery.LAN in config.discovery:
        sources.append(_lan(config, interface, drops, stack))
    kademlia: KademliaDirectory | None = None
    if Discovery.KADEMLIA in config.discovery:
        kademlia = _kademlia(port, drops, subscribe=config.watch)
        sources.append(kademlia_source(kademlia))
    mainline: Mainline | None = None
    if Discovery.MAINLINE in config.discovery:
        mainline = Mainline(
            config, port, topics, drops, relaxed=lambda: kademlia is not None and kademlia.size > 0
        )
        sources.append(late_source(MAINLINE, mainline.open))
    survey = mainline.survey if mainline is not None else None
    opened = Sources(sources, dht=kademlia, hints=hints, survey=survey, drops=drops)
    stack.push_async_callback(opened.close)
    if kademlia is not None:
        await stack.enter_async_context(KeptState(config.network_directory).keeping(kademlia))
    return opened


def _kademlia(port: UdpPort, drops: Drops, *, subscribe: bool) -> KademliaDirectory:
    families = frozenset(port.families)
    own = OwnIds(families, os.urandom, addresses=outgoing_addresses())
    directory = KademliaDirectory(port.send_dht, own=own, drops=drops, families=families, subscribe=subscribe)
    port.on_dht(directory.handle_datagram)
    port.on_exhausted(directory.slow_down)
    return directory


def _lan(config: NodeConfig, interface: str, drops: Drops, stack: AsyncExitStack) -> Source:
    """A machine on which it cannot be had goes without."""

    async def local_links() -> list[LocalLink]:
        return [LocalLink(*link) for link in await links.local_links({interface})]

    try:
        lan_port = MulticastPort.open(local_links, datagram_size=DATAGRAM_SIZE, drops=drops)
    except SystemRefusedError as error:
        log.warning("%s: going on without", error)
        return broken_source(LAN, str(error))
    stack.callback(lan_port.close)
    lan = LanDirectory(lan_port, epoch_key=partial(epoch_key, config.network_id.secret), drops=drops)
    return lan_source(lan)
