"""Makes the nodes: the production directory on a simulated line."""

import random
from dataclasses import dataclass, replace

from dhtvpn.discovery.contact import IPV4, Contact
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.nat_behaviour import PORT_RESTRICTED, Allocation
from dhtvpn.lab.simulation import clock
from dhtvpn.lab.simulation.internet import Internet, Line
from dhtvpn.lab.simulation.simulated_nat import SimulatedNat

EXPIRY_S = (30.0, 120.0)
"""Real routers forget a UDP mapping after something in between."""


@dataclass(slots=True)
class Node:
    """One site with its directory."""

    line: Line
    directory: KademliaDirectory
    drops: Drops

    @property
    def contact(self) -> Contact:
        return Contact(self.directory.node_id, self.line.endpoint)

    async def close(self) -> None:
        """Leave without a word, as a machine does that is switched off."""
        self.line.internet.disconnect(self.line)
        await self.directory.close()


def make_node(
    internet: Internet, endpoint: Endpoint, site: int, rng: random.Random, *, behind_nat: bool = False
) -> Node:
    """A node at ``endpoint``, which it knows, unless it is behind a NAT: then it is read-only, as a member is
    until STUN says otherwise, and has to learn its address from others."""
    nat = _home_router(endpoint.host, rng) if behind_nat else None
    line = internet.connect(endpoint, site, nat)
    drops = Drops()
    directory = KademliaDirectory(
        line.send,
        own=OwnIds({IPV4}, rng.randbytes, addresses=[] if behind_nat else [endpoint.host]),
        drops=drops,
        families=frozenset({IPV4}),
        read_only=behind_nat,
        monotonic=clock.monotonic,
        unix_time=clock.unix_time,
        random_bytes=rng.randbytes,
    )
    line.handler = directory.handle_datagram
    return Node(line, directory, drops)


def _home_router(host: str, rng: random.Random) -> SimulatedNat:
    """Port-restricted. It forgets early, whatever RFC 4787 REQ-5 asks for, and gives another port then."""
    behaviour = replace(PORT_RESTRICTED, allocation=Allocation.RANDOM, expiry_s=int(rng.uniform(*EXPIRY_S)))
    return SimulatedNat(behaviour, host, random.Random(host))  # noqa: S311 - repeatable, not secret
