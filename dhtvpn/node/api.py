"""What the local API can ask of a node (control.schema.NodeApi)."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

from dhtvpn.errors import NotFoundError
from dhtvpn.membership.addresses import ipv4_network, ipv6_network
from dhtvpn.mesh.peers import Peer
from dhtvpn.node.explanation import explanation
from dhtvpn.node.mesh_graph import mesh_document
from dhtvpn.node.node import Node
from dhtvpn.node.path_facts import path_fact
from dhtvpn.node.status import status_document
from dhtvpn.node.stock import StockPeer

CONNECT_S = 5.0
"""How long a member that has just been found may take to connect before it is pinged all the same."""

NO_PATH: dict[str, Any] = {"path": None, "endpoint": None, "relay": None}


class LocalApi:
    """Reads and steers one node for the control server."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def status(self) -> dict[str, Any]:
        return status_document(self._node)

    def why(self, peer: str) -> dict[str, Any]:
        return explanation(self._node, self._node.table.find(peer))

    def graph(self) -> dict[str, Any]:
        return mesh_document(self._node)

    async def ping(
        self, peer: str, count: int, interval_s: float, until_direct: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """Control-frame round trips through the tunnel, ``interval_s`` apart, each with the path that its
        answer came by. Raises NotFoundError."""
        node = self._node
        target = await self._find(peer)
        if until_direct:
            node.try_for_direct(target)
        start, was_direct = time.monotonic(), None
        for sequence in range(1, count + 1):
            began = time.monotonic()
            rtt_ms = await node.liveness.ping(target)
            answered_by = target.endpoint if rtt_ms is None else target.heard_at
            fact = None if target.path is None else path_fact(answered_by, node.relaying)
            direct = fact is not None and fact.direct and rtt_ms is not None
            became_direct = direct and was_direct is False
            yield {
                "seq": sequence,
                "name": target.name,
                "rtt_ms": None if rtt_ms is None else round(rtt_ms, 2),
                **(NO_PATH if fact is None else fact.document()),
                "became_direct": became_direct,
                "after_s": round(time.monotonic() - start, 2),
            }
            if direct and until_direct:
                return
            was_direct = direct if rtt_ms is not None or was_direct is None else was_direct
            if sequence < count:
                await asyncio.sleep(max(0.0, interval_s - (time.monotonic() - began)))

    async def _find(self, text: str) -> Peer:
        """The peer that a person means; in a large network it may have to be looked up first, and gets
        CONNECT_S to connect. Raises NotFoundError."""
        node = self._node
        try:
            return node.table.find(text)
        except NotFoundError:
            if not await node.on_demand.seek(text):
                raise
        target = node.table.find(text)
        deadline = time.monotonic() + CONNECT_S
        while target.path is None and (left := deadline - time.monotonic()) > 0:
            await node.events.changed(left)
        return target

    async def changed(self, timeout_s: float) -> None:
        await self._node.events.changed(timeout_s)

    async def leave(self) -> None:
        self._node.stop_requested.set()

    def events(self, last: int | None, after: int | None, follow: bool) -> AsyncIterator[dict[str, Any]]:
        return self._node.events.stream(last=last, after=after, follow=follow)

    def stock_peers(self) -> list[dict[str, Any]]:
        return [_document(stock) for stock in self._node.stock.all()]

    async def add_stock_peer(self, name: str, public_key_b64: str) -> dict[str, Any]:
        """Attach a client and return what it has to be told, its preshared key included."""
        node = self._node
        stock = node.stock.add(name, public_key_b64, node.taken_ipv4())
        own = node.surroundings.candidates()  # best first: a port that the router forwards
        candidates = [candidate for candidate in own if not candidate.endpoint.is_link_local]
        network_id = node.config.network_id
        return {
            **_document(stock),
            "preshared_key": base64.b64encode(stock.preshared_key).decode(),
            "node_public_key": node.tunnel_public_key_base64,
            "endpoint": str(candidates[0].endpoint) if candidates else None,
            "allowed_ips": [f"{node.claim.address}/32", f"{node.ipv6}/128"],
            "networks": [str(ipv4_network(network_id)), str(ipv6_network(network_id))],
        }

    async def remove_stock_peer(self, name: str) -> None:
        self._node.stock.remove(name)


def _document(stock: StockPeer) -> dict[str, Any]:
    return {
        "name": stock.peer.name,
        "public_key": base64.b64encode(stock.peer.tunnel_key).decode(),
        "ipv4": None if stock.peer.ipv4 is None else str(stock.peer.ipv4),
        "ipv6": str(stock.peer.ipv6),
    }
