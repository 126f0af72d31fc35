"""The document behind graph, on a made-up node."""

from seen_node import BY_SERVER, BY_VOLUNTEER, SeenNode

from dhtvpn.control import schema
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import short_id
from dhtvpn.mesh.relayed import relayed
from dhtvpn.mesh.routes import Links
from dhtvpn.node.mesh_graph import mesh_document

OWN_KEY, SERVER, LAPTOP, STRANGER = bytes(8), bytes([1]) * 8, bytes([2]) * 8, bytes([9]) * 8
IDS = {key: short_id(key) for key in (SERVER, LAPTOP, STRANGER)}


def members() -> SeenNode:
    """The server is reached directly, the laptop through it."""
    node = SeenNode()
    node.id = short_id(OWN_KEY)
    for name, at in (("server", Endpoint("198.18.9.9", 1)), ("laptop", relayed(BY_SERVER, 2))):
        peer = node.add(name, at)
        peer.id, peer.rtt_ms = short_id(peer.node_key or b""), 20.0
    return node


def edges(node: SeenNode) -> dict[frozenset[str], tuple[str, list[str], float | None, str]]:
    document = mesh_document(node)  # type: ignore[arg-type]
    assert set(document) == set(schema.GraphDocument.__annotations__)
    return {
        frozenset((edge["from"], edge["to"])): (edge["path"], edge["through"], edge["rtt_ms"], edge["known"])
        for edge in document["edges"]
    }


def test_own_paths_and_what_others_tell() -> None:
    node = members()
    node.links = [Links(SERVER, 7, {OWN_KEY: 21.0, LAPTOP: 5.0, STRANGER: 9.0})]
    assert edges(node) == {
        frozenset((node.id, IDS[SERVER])): ("direct", [], 20.0, "measured"),
        frozenset((node.id, IDS[LAPTOP])): ("relayed", [IDS[SERVER]], 20.0, "measured"),
        frozenset((IDS[SERVER], IDS[LAPTOP])): ("direct", [], 5.0, "told"),
        frozenset((IDS[SERVER], IDS[STRANGER])): ("direct", [], 9.0, "told"),
    }
    nodes = mesh_document(node)["nodes"]  # type: ignore[arg-type]
    assert [(each["name"], each["self"]) for each in nodes] == [
        ("desk", True),
        ("laptop", False),
        ("server", False),
        (None, False),
    ]


def test_a_likely_way_is_not_drawn_over_our_own() -> None:
    node = members()
    node.links = [Links(SERVER, 7, {OWN_KEY: 21.0, LAPTOP: 5.0}), Links(LAPTOP, 3, {SERVER: 5.0})]
    assert [known for *_, known in edges(node).values()].count("likely") == 0


def test_a_likely_way_between_two_others() -> None:
    node = members()
    node.links = [Links(LAPTOP, 3, {SERVER: 5.0}), Links(STRANGER, 3, {SERVER: 4.0})]
    assert edges(node)[frozenset((IDS[LAPTOP], IDS[STRANGER]))] == ("relayed", [IDS[SERVER]], 11.0, "likely")


def test_a_volunteer_is_no_member() -> None:
    node = members()
    node.reach(node.table.find("laptop"), relayed(BY_VOLUNTEER, 2))
    assert edges(node)[frozenset((node.id, IDS[LAPTOP]))] == ("relayed", [], 20.0, "measured")


def test_nobody_else() -> None:
    assert mesh_document(SeenNode())["edges"] == []  # type: ignore[arg-type]
