"""The mesh as DOT, Mermaid and SVG, letter by letter where that is short."""

from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from dhtvpn.cli.graph_svg import NAMESPACE, svg
from dhtvpn.cli.graph_text import dot, edge_label, mermaid

DOT = """\
graph mesh {
  label="home";
  node [shape=box];
  n0 [label="desk", style=bold];
  n1 [label="laptop"];
  n2 [label="00000003"];
  n0 -- n1 [label="1.5 ms"];
  n1 -- n2 [label="20.0 ms"];
  n0 -- n2 [label="23.5 ms via laptop (likely)", style=dashed];
}
"""
MERMAID = """\
graph LR
  n0["desk"]
  n1["laptop"]
  n2["00000003"]
  n0 ---|"1.5 ms"| n1
  n1 ---|"20.0 ms"| n2
  n0 -.-|"23.5 ms via laptop (likely)"| n2
"""


@pytest.fixture
def mesh(fake_daemon: ModuleType) -> dict[str, Any]:
    document: dict[str, Any] = fake_daemon.mesh_document()
    return document


def elements(picture: str, tag: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(picture).findall(f"{{{NAMESPACE}}}{tag}")  # noqa: S314 - our own


def test_dot(mesh: dict[str, Any]) -> None:
    assert dot(mesh) == DOT


def test_mermaid(mesh: dict[str, Any]) -> None:
    assert mermaid(mesh) == MERMAID


def test_svg(mesh: dict[str, Any]) -> None:
    picture = svg(mesh)
    assert [line.get("class") for line in elements(picture, "line")] == ["direct", "direct", "relayed"]
    assert [box.get("class") for box in elements(picture, "rect")] == ["self", "member", "member"]
    assert [text.text for text in elements(picture, "text")] == [
        "1.5 ms",
        "20.0 ms",
        "23.5 ms via laptop (likely)",
        "desk",
        "laptop",
        "00000003",
    ]
    assert [title.text for title in elements(picture, "title")] == ["home"]


def test_svg_draws_inside_its_frame(mesh: dict[str, Any]) -> None:
    mesh["nodes"] = [{**mesh["nodes"][1], "id": f"{number:08d}"} for number in range(1, 41)]
    picture = svg(mesh)
    *_, width, height = map(float, ElementTree.fromstring(picture).attrib["viewBox"].split())  # noqa: S314
    boxes = elements(picture, "rect")
    assert len({(box.get("x"), box.get("y")) for box in boxes}) == 40
    for box in boxes:
        x, y = float(box.attrib["x"]), float(box.attrib["y"])
        assert 0 <= x <= width - float(box.attrib["width"]) and 0 <= y <= height - float(box.attrib["height"])


@pytest.mark.parametrize("write", [dot, mermaid, svg])
def test_a_node_alone_and_a_peer_that_is_away(mesh: dict[str, Any], write: Any) -> None:
    mesh["nodes"][1:] = [{**mesh["nodes"][1], "state": "unreachable", "ipv4": "10.7.0.2"}]
    mesh["edges"] = []
    text = write(mesh)
    assert "laptop" in text and "10.7.0.2" in text
    mesh["nodes"] = mesh["nodes"][:1]
    assert "desk" in write(mesh)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "1.5 ms"),
        ({"rtt_ms": None}, ""),
        ({"path": "relayed"}, "1.5 ms via volunteer"),
        ({"path": "relayed", "through": ["00000003", "unknown"]}, "1.5 ms via 00000003, unknown"),
    ],
)
def test_labels_of_edges(mesh: dict[str, Any], changes: dict[str, Any], label: str) -> None:
    assert edge_label(mesh, {**mesh["edges"][0], **changes}) == label


def test_an_edge_to_nowhere_is_left_out(mesh: dict[str, Any]) -> None:
    mesh["edges"].append({**mesh["edges"][0], "to": "99999999"})
    assert dot(mesh) == DOT and mermaid(mesh) == MERMAID and len(elements(svg(mesh), "line")) == 3
