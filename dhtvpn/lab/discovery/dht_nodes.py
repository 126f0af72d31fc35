"""Many DHT nodes in one process, each on a UDP port of its own inside another network namespace.

``python -m dhtvpn.lab.discovery.dht_nodes`` reads a JSON list of ``[namespace, address]`` from stdin, opens a
port in each namespace, lets all find each other through the first few, prints ``up``, serves until SIGTERM.
Each is what ``dhtvpn bootstrap`` runs, DHT and STUN; only the process, and so its memory, is shared. On
loopback, where nodes have /24s of their own too, buckets take two of each as elsewhere.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dhtvpn.discovery.buckets import AddressRules
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DhtVpnError
from dhtvpn.lab import namespaces
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_service import StunService

PORT = 4690
CONTACTS = 3
"""The first nodes: those that the others, and members, start from."""

PER_WAVE = 10
"""Nodes that enter the DHT at the same time."""

SETTLE_S = 2.0
"""After the last has entered: lookups of the own id are under way, several round trips each."""


@dataclass
class DhtNode:
    """One node that is up."""

    port: UdpPort
    directory: KademliaDirectory

    @classmethod
    async def open(cls, address: str, port: int = PORT) -> "DhtNode":
        """Bind ``address`` in the namespace that this thread is in. Raises SystemRefusedError."""
        drops = Drops()
        opened = await UdpPort.open(port, address, None, drops=drops, tunnel_sockets=False)
        StunService(opened)
        families = frozenset(opened.families)
        own = OwnIds(families, os.urandom, addresses=[address])
        rules = AddressRules(local_per_prefix=2)
        directory = KademliaDirectory(opened.send_dht, own=own, drops=drops, families=families, rules=rules)
        opened.on_dht(directory.handle_datagram)
        return cls(opened, directory)

    async def close(self) -> None:
        await self.directory.close()
        self.port.close()


async def enter(nodes: Sequence[DhtNode], endpoints: Sequence[Endpoint]) -> None:
    """Let every node into the DHT, starting from the first ``CONTACTS`` endpoints.

    Raises DhtVpnError when one gets no answer.
    """
    known = list(endpoints[:CONTACTS])
    for number, node in enumerate(nodes[: len(known)]):
        await node.directory.start(known[:number])
    for start in range(len(known), len(nodes), PER_WAVE):
        wave = nodes[start : start + PER_WAVE]
        answers = await asyncio.gather(*(node.directory.start(known) for node in wave))
        if not all(answers):
            raise DhtVpnError("a DHT node gets no answer from those that it starts from")


async def serve(places: Sequence[tuple[str, str]]) -> None:
    """Open a node at each (namespace, address), and serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    nodes = []
    for namespace, address in places:
        namespaces.enter(
            namespace
        )  # a socket belongs to the namespace that its thread was in when it was made
        nodes.append(await DhtNode.open(address))
    await enter(nodes, [Endpoint(address, PORT) for _, address in places])
    await asyncio.sleep(SETTLE_S)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    await stop.wait()
    for node in nodes:
        await node.close()


def main() -> int:
    """Run until SIGTERM."""
    places = [(str(namespace), str(address)) for namespace, address in json.load(sys.stdin)]
    asyncio.run(serve(places))
    return 0


if __name__ == "__main__":
    sys.exit(main())
