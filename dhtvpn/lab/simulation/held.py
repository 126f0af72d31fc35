"""What storing nodes hold for others, sampled while an experiment at rest runs."""

import asyncio
from collections.abc import Sequence

from dhtvpn.discovery.floors import FLOOR_OVERHEAD
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.subscriptions import SUBSCRIPTION_OVERHEAD
from dhtvpn.lab.simulation.figures import HeldFigures, average
from dhtvpn.lab.simulation.nodes import Node

SAMPLE_S = 300.0


class HeldSamples:
    """Takes a sample of every node each ``SAMPLE_S``, from the first on. One of these for one experiment."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = list(nodes)
        self._envelopes: list[int] = []
        self._stored_octets: list[int] = []
        self._floors: list[int] = []
        self._subscriptions: list[int] = []
        self._octets: list[int] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.take()
            await asyncio.sleep(SAMPLE_S)

    def take(self) -> None:
        """One sample of every node that is up."""
        for node in self._nodes:
            if node.line.up:
                directory = node.directory
                self._envelopes.append(directory.stored)
                self._stored_octets.append(directory.storage.size_bytes)
                self._floors.append(directory.storage.floors)
                self._subscriptions.append(len(directory.subscriptions))
                self._octets.append(octets_of(directory))

    @property
    def figures(self) -> HeldFigures:
        """Means over nodes and samples, and the one sample with most."""
        return HeldFigures(
            envelopes=average(self._envelopes),
            stored_octets=average(self._stored_octets),
            floors=average(self._floors),
            subscriptions=average(self._subscriptions),
            octets=average(self._octets),
            worst_octets=max(self._octets, default=0),
        )


def octets_of(directory: KademliaDirectory) -> int:
    """Memory of the three tables as the caps count it: what each entry costs at most."""
    storage = directory.storage
    floors, leases = storage.floors * FLOOR_OVERHEAD, len(directory.subscriptions) * SUBSCRIPTION_OVERHEAD
    return storage.size_bytes + floors + leases
