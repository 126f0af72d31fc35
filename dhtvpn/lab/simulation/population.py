"""The nodes that store for others, and their routing tables.

Weeks of joining are not simulated: each table is filled through ``RoutingTable.heard``, the path that every
contact takes in production, with contacts as a node meets them over time: some of every distance. What
the table keeps is up to its own rules.
"""

import random
from bisect import bisect_left

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.routing import K
from dhtvpn.discovery.upkeep import PING_AFTER_S
from dhtvpn.lab.simulation import clock
from dhtvpn.lab.simulation.address_plan import endpoints
from dhtvpn.lab.simulation.internet import Internet
from dhtvpn.lab.simulation.nodes import Node, make_node

ID_BITS = 160
OFFERED = K + K // 4
"""Contacts of each distance that a table is offered: its bucket, and a few replacements."""


class Population:
    """``count`` public nodes at the sites from 0 on. None of them runs its upkeep until it is started."""

    def __init__(self, internet: Internet, count: int, rng: random.Random) -> None:
        self.internet = internet
        self._rng = rng
        self.nodes = [
            make_node(internet, endpoint, site, rng) for site, endpoint in enumerate(endpoints(0, count))
        ]
        self._fill()

    def choose(self, percent: float) -> list[Node]:
        """This share of the nodes, drawn at random."""
        return self._rng.sample(self.nodes, round(len(self.nodes) * percent / 100))

    def keep_up(self) -> None:
        """Let every node have heard of each of its contacts within PING_AFTER_S, as its upkeep sees to in
        production. Ten thousand upkeeps would take longer than all lookups; without them, contacts grow old
        while one experiment follows the other, and nodes name only those whom somebody has asked lately."""
        now = clock.monotonic()
        for node in self.nodes:
            table = node.directory._table
            for standing in list(table._all()):
                table.heard(standing.contact, now - self._rng.uniform(0.0, PING_AFTER_S), standing.rtt_s)

    def _fill(self) -> None:
        by_id = sorted((int.from_bytes(n.directory.node_id, "big"), n.line.site) for n in self.nodes)
        ids = [node_id for node_id, _ in by_id]
        contacts = [self.nodes[site].contact for _, site in by_id]
        sites = [site for _, site in by_id]
        for own_id, site in by_id:
            for index in self._acquaintances(ids, own_id):
                self._introduce(self.nodes[site], contacts[index], sites[index])

    def _acquaintances(self, ids: list[int], own_id: int) -> list[int]:
        """Indices into the sorted ``ids``: up to OFFERED of every distance, the farthest first."""
        met: list[int] = []
        low, high = 0, len(ids)  # those that share ``depth`` bits with us
        for depth in range(ID_BITS):
            if high - low <= 1:
                break
            bit = 1 << (ID_BITS - 1 - depth)
            start = own_id >> (ID_BITS - depth) << (ID_BITS - depth)
            middle = bisect_left(ids, start | bit, low, high)
            others, ours = (
                ((low, middle), (middle, high)) if own_id & bit else ((middle, high), (low, middle))
            )
            size = others[1] - others[0]
            met += self._rng.sample(range(*others), min(size, OFFERED))
            low, high = ours
        return met

    def _introduce(self, node: Node, contact: Contact, site: int) -> None:
        now = clock.monotonic()
        rtt_s = self.internet.latencies.rtt_s(node.line.site, site)
        node.directory._table.heard(contact, now - self._rng.uniform(0.0, 300.0), rtt_s)
