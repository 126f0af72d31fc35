"""Makes the nodes: the production directory on a simulated line."""

import random
from dataclasses import dataclass

from dhtvpn.discovery.contact import IPV4, Contact
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.simulation import clock
from dhtvpn.lab.simulation.internet import Internet, Line
from dhtvpn.lab.simulation.site_nat import MAX_EXPIRY_S, MIN_EXPIRY_S, SiteNat


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
    nat = SiteNat(endpoint.host, rng.uniform(MIN_EXPIRY_S, MAX_EXPIRY_S)) if behind_nat else None
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
