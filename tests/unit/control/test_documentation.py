"""docs/local-api.md names every request, key and kind of error that the code has."""

from pathlib import Path
from typing import get_args

import pytest

from dhtvpn.control import schema, server
from dhtvpn.node.advice import Code
from dhtvpn.node.happenings import Happening

PAGE = (Path(__file__).parents[3] / "docs" / "local-api.md").read_text()
PARTS = (
    schema.StatusDocument,
    schema.NetworkPart,
    schema.NodePart,
    schema.NatPart,
    schema.PortMappingPart,
    schema.GatewayPart,
    schema.DhtPart,
    schema.EnginePart,
    schema.ConfinementPart,
    schema.SourcePart,
    schema.PeerPart,
    schema.PingReply,
    schema.EventLine,
    schema.WhyDocument,
    schema.PredictionPart,
    schema.PathPart,
    schema.SidePart,
    schema.CandidatePart,
    schema.PairPart,
    schema.ChangePart,
    schema.AdvicePart,
    schema.GraphDocument,
    schema.GraphNode,
    schema.GraphEdge,
    schema.StockPeer,
    schema.StockPeerSetup,
)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_key_is_named(part: type) -> None:
    assert [key for key in part.__annotations__ if f"`{key}`" not in PAGE] == []


def test_every_request_is_named(tmp_path: Path) -> None:
    routes = server.ControlServer(None, tmp_path)._routes()  # type: ignore[arg-type]
    requests = [f"`{route.method} {route.path.replace('{name}', 'NAME')}`" for route in routes]
    assert [request for request in requests if request not in PAGE] == []


def test_every_kind_of_error_stands_with_its_status() -> None:
    for kind, row in schema.ERROR_KINDS.items():
        assert f"| `{kind}` | {row['http_status']}" in PAGE


def test_states_and_paths_are_named() -> None:
    for word in (*get_args(schema.PeerState), *get_args(schema.PathKind)):
        assert f"`{word}`" in PAGE


def _every(kind: type) -> list[type]:
    return [each for child in kind.__subclasses__() for each in (child, *_every(child))]


def test_every_event_is_named_with_its_keys() -> None:
    words = {each.event for each in _every(Happening) if each.event}
    assert len(words) >= 12
    assert [word for word in words if f"`{word}`" not in PAGE] == []


def test_every_advice_is_named() -> None:
    assert [code.value for code in Code if f"`{code.value}`" not in PAGE] == []
