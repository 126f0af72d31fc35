"""The status document: what ``GET /v1/status`` returns and ``dhtvpn status --json`` prints.

Its shape is a contract with scripts (docs/local-api.md): fields are added, never changed.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from dhtvpn.discovery.sources import KADEMLIA, REMEMBERED, Condition
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer
from dhtvpn.node.path_facts import path_fact
from dhtvpn.node.port_mapping import port_mapping_document

if TYPE_CHECKING:
    from dhtvpn.node.node import Node


def status_document(node: "Node") -> dict[str, Any]:
    """The document of ``node`` as of now."""
    node.port.count_kernel_drops()
    return {
        "network": {
            "name": node.config.network,
            "id": node.config.network_id.short,
            "mode": node.config.network_id.mode.name.lower(),
        },
        "node": {
            "name": node.config.hostname,
            "id": node.id,
            "ipv4": str(node.claim.address),
            "ipv6": str(node.ipv6),
            "interface": node.local_end.interface,
            "udp_port": node.port.port,
            "public_key": node.tunnel_public_key_base64,
        },
        "nat": {
            "mapping": node.surroundings.mapping.value,
            "filtering": node.surroundings.filtering.value,
            "public_endpoints": [str(endpoint) for endpoint in node.surroundings.public_endpoints],
        },
        "port_mapping": port_mapping_document(node),
        "dht": {
            "nodes": node.dht.size if node.dht is not None else 0,
            "records_published": node.directory.confirmed.get(KADEMLIA, 0),
            "records_stored": node.dht.stored if node.dht is not None else 0,
            "clock_offset_s": None if node.clock.offset_s is None else round(node.clock.offset_s),
        },
        "sources": sources_document(node),
        "engine": {
            "pid": node.local_end.engine.pid,
            "restarts": node.engine_restarts,
            "offloads": list(node.local_end.engine.offloads),
        },
        "confinement": confinement_document(node),
        "uptime_s": round(time.monotonic() - node.started, 1),
        "peers": [peer_document(node, peer) for peer in node.table.all()],
        "drops": node.drops.as_dict(),
    }


def confinement_document(node: "Node") -> dict[str, Any] | None:
    """What the control process has given up, and what it could not; None before it has."""
    done = node.confinement
    if done is None:
        return None
    return {
        "user": done.user,
        "capabilities": list(done.capabilities),
        "file_system": done.file_system,
        "system_calls": done.system_calls,
        "not_dropped": list(done.not_dropped),
    }


def peer_document(node: "Node", peer: Peer) -> dict[str, Any]:
    """One entry of ``peers``."""
    handshake = node.tunnels.last_handshake(peer)
    return {
        "name": peer.name,
        "id": peer.id,
        "ipv4": _text(peer.ipv4),
        "ipv6": str(peer.ipv6),
        "state": peer.state.value,
        "path": peer.path,
        "endpoint": None if peer.relayed else _text(peer.endpoint),
        "relay": relay_document(node, peer),
        "rtt_ms": None if peer.rtt_ms is None else round(peer.rtt_ms, 2),
        "cipher": peer.cipher,
        "mtu": peer.mtu,
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
        "last_handshake_s": None if handshake is None else round(time.monotonic() - handshake, 1),
        "found_by": _found_by(node, peer),
        "stock": peer.node_key is None,
    }


def relay_document(node: "Node", peer: Peer) -> dict[str, Any] | None:
    """Whom the peer's packets go through; None where there is nobody."""
    return None if peer.path is None else path_fact(peer.endpoint, node.relaying).relay


def sources_document(node: "Node") -> list[dict[str, Any]]:
    """Each source of records, whether it works, and how many peers it has found first."""
    found = Counter(_found_by(node, peer) for peer in node.table.all())
    conditions = node.sources.conditions()
    if remembered := found[REMEMBERED]:
        working = sum(_found_by(node, p) == REMEMBERED and p.path is not None for p in node.table.all())
        conditions[REMEMBERED] = Condition(working > 0, f"{working} of {remembered} connected")
    else:
        conditions[REMEMBERED] = Condition(False, "no peer known from an earlier run")
    return [
        {
            "name": name,
            "works": condition.works,
            "detail": condition.detail,
            "peers_found": found[name],
            "records_published": node.directory.confirmed.get(name, 0),
        }
        for name, condition in conditions.items()
    ]


def _found_by(node: "Node", peer: Peer) -> str | None:
    member = node.members.of(peer)
    return None if member is None else member.found_by


def _text(value: object | Endpoint | None) -> str | None:
    return None if value is None else str(value)
