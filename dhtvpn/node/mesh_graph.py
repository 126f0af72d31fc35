"""The document behind ``dhtvpn graph``: members, and who reaches whom how."""

from typing import TYPE_CHECKING, Any

from dhtvpn.identity import short_id
from dhtvpn.mesh.overview import Reach, direct_links, likely_ways
from dhtvpn.mesh.peers import Peer
from dhtvpn.node.neighbourhood import key_of

if TYPE_CHECKING:
    from dhtvpn.node.node import Node


def mesh_document(node: "Node") -> dict[str, Any]:
    """``nodes`` and ``edges`` as of now. What is not our own is what members have told us."""
    neighbourhood = node.relaying.neighbourhood
    own_key, own = neighbourhood.own_links()
    told = [own, *neighbourhood.told()]
    peers = node.table.all()
    names = {own_key: node.id, **{key_of(peer): peer.id for peer in peers if peer.node_key}}
    direct = direct_links(told)
    ours = {key_of(peer) for peer in peers if peer.path is not None}
    likely = [
        reach
        for reach in likely_ways(told, direct)
        if not (own_key in (reach.one, reach.other) and {reach.one, reach.other} & ours)
    ]
    edges = [_edge(reach, own_key) for reach in (*direct, *likely)]
    edges += [_relayed(node, peer) for peer in peers if peer.path == "relayed"]
    edges += [_stock(node, peer) for peer in peers if peer.node_key is None and peer.path is not None]
    others = {end: None for reach in (*direct, *likely) for end in (reach.one, reach.other)}
    strangers = [key for key in others if key not in names]
    return {
        "network": node.config.network,
        "nodes": [
            _node(node.id, node.config.hostname, str(node.claim.address), "connected", own=True),
            *(_of_peer(peer) for peer in peers),
            *(_node(short_id(key), None, None, None) for key in strangers),
        ],
        "edges": sorted(edges, key=lambda edge: (edge["from"], edge["to"])),
    }


def _node(
    identity: str, name: str | None, ipv4: str | None, state: str | None, *, own: bool = False
) -> dict[str, Any]:
    return {"id": identity, "name": name, "ipv4": ipv4, "state": state, "self": own}


def _of_peer(peer: Peer) -> dict[str, Any]:
    return _node(peer.id, peer.name, None if peer.ipv4 is None else str(peer.ipv4), peer.state.value)


def _edge(reach: Reach, own_key: bytes) -> dict[str, Any]:
    if own_key in (reach.one, reach.other):
        known = "measured" if reach.through is None else "likely"
    else:
        known = "told" if reach.through is None else "likely"
    return {
        "from": short_id(reach.one),
        "to": short_id(reach.other),
        "path": "direct" if reach.through is None else "relayed",
        "through": [] if reach.through is None else [short_id(reach.through)],
        "rtt_ms": None if reach.round_trip_ms is None else round(reach.round_trip_ms, 1),
        "known": known,
    }


def _relayed(node: "Node", peer: Peer) -> dict[str, Any]:
    """Our own path to a peer beyond a relay. A volunteer is no member: ``through`` is empty then."""
    members = node.relaying.members_of(peer.endpoint)
    return {
        "from": node.id,
        "to": peer.id,
        "path": "relayed",
        "through": [member.id for member in members],
        "rtt_ms": None if peer.rtt_ms is None else round(peer.rtt_ms, 1),
        "known": "measured",
    }


def _stock(node: "Node", peer: Peer) -> dict[str, Any]:
    return {**_relayed(node, peer), "path": "direct", "through": []}
