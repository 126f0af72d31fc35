"""The larger part of a node's code, put together on the port, the device and the engine that are open.

The daemon imports it while the engine's process starts.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from dhtvpn.choices import Discovery
from dhtvpn.control.server import ControlServer
from dhtvpn.discovery.sources import OtherSurvey
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.membership.pairwise import PairCredentials
from dhtvpn.nat.filtering import find_filtering
from dhtvpn.nat.ice import IceAgent
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.reflexive import Survey, survey
from dhtvpn.node.api import LocalApi
from dhtvpn.node.claim import OwnClaim
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.connector import AgentMaker
from dhtvpn.node.events import Events
from dhtvpn.node.local_end import LocalEnd
from dhtvpn.node.node import Node
from dhtvpn.node.port_mapping import open_port_mapper
from dhtvpn.node.sources import open_sources
from dhtvpn.node.surroundings import Surroundings
from dhtvpn.records.record import Candidate
from dhtvpn.records.topics import NetworkTopics
from dhtvpn.system import links

__all__ = ["Node", "put_together", "serving"]


async def put_together(
    config: NodeConfig,
    stack: AsyncExitStack,
    *,
    identity: Identity,
    claim: OwnClaim,
    port: UdpPort,
    local_end: LocalEnd,
    events: Events,
    drops: Drops,
    random_bytes: Callable[[int], bytes],
    wanted_to_run: Callable[[], float],
) -> Node:
    """The node, with its sources; ``stack`` releases what they hold, the node is the caller's to close."""
    topics = NetworkTopics(config.network_id.secret)
    sources = await open_sources(config, port, local_end.interface, drops, stack, topics=topics)
    return Node(
        config,
        identity=identity,
        claim=claim,
        port=port,
        sources=sources,
        local_end=local_end,
        surroundings=_surroundings(config, port, local_end.interface, sources.survey),
        make_agent=_agent_maker(port),
        events=events,
        drops=drops,
        random_bytes=random_bytes,
        port_mapper=open_port_mapper(
            config,
            port.port,
            local_end.interface,
            identity=identity,
            say=events.say,
            drops=drops,
            random_bytes=random_bytes,
        ),
        topics=topics,
        wanted_to_run=wanted_to_run,
    )


def _surroundings(
    config: NodeConfig, port: UdpPort, interface: str, other: OtherSurvey | None
) -> Surroundings:
    async def host_addresses() -> Sequence[links.Address]:
        return await links.host_addresses(exclude_interfaces={interface})

    async def survey_from(servers: Sequence[Endpoint], own: Sequence[links.Address]) -> Survey:
        addresses = [str(address) for address in own]
        found = await survey(port, servers, host_addresses=addresses)
        if not found.public_endpoints and other is not None:
            elsewhere = await other(addresses)  # servers that speak no STUN: nobody asks them anything more
            found = Survey(elsewhere.mapping, elsewhere.public_endpoints)
        return found

    async def link_locals() -> Sequence[links.LinkLocal]:
        return await links.link_local_addresses(exclude_interfaces={interface})

    return Surroundings(
        network_id=config.network_id,
        port=port.port,
        host_addresses=host_addresses,
        survey=survey_from,
        find_filtering=partial(find_filtering, port),
        link_locals=link_locals if Discovery.LAN in config.discovery and 6 in port.families else None,
    )


def _agent_maker(port: UdpPort) -> AgentMaker:
    def make_agent(
        credentials: PairCredentials,
        local: Sequence[Candidate],
        remote: Sequence[Candidate],
        heard: Callable[[Endpoint], None],
    ) -> IceAgent:
        return IceAgent(
            port,
            credentials,
            local=[(candidate.endpoint, candidate.kind) for candidate in local],
            remote=[(candidate.endpoint, candidate.kind) for candidate in remote],
            heard=heard,
        )

    return make_agent


@asynccontextmanager
async def serving(node: Node, path: Path) -> AsyncIterator[None]:
    """The local API of ``node`` at ``path``, as long as the context lasts."""
    server = ControlServer(LocalApi(node), path)
    await server.start()
    try:
        yield
    finally:
        await server.close()
