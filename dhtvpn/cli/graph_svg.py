"""The mesh as a picture: members on a circle, lines for who reaches whom. SVG, drawn here and now."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree

from dhtvpn.cli.graph_text import edge_label, known_edges, node_lines

NODE_WIDTH, NODE_HEIGHT = 132, 40
LEAST_RADIUS, SPACING, MARGIN = 150, 170, 40
"""Of the circle; along it between two members; around everything. Pixels."""
LABEL_AT: Final = 0.42
"""How far along a line its label stands: not in the middle, where lines of a circle cross."""
MAX_LABEL: Final = 20
COLOURS: Final = {"direct": "#2a7f3f", "relayed": "#b8860b"}
NAMESPACE: Final = "http://www.w3.org/2000/svg"
STYLE: Final = (
    "text{font:12px sans-serif;text-anchor:middle}rect{fill:#fff;stroke:#333}.self{stroke-width:3}"
    ".away{stroke-dasharray:4 3;opacity:.6}.rtt{font-size:10px;fill:#333;paint-order:stroke;stroke:#fff;"
    "stroke-width:3px}.relayed{stroke-dasharray:6 4}"
)

Place = tuple[float, float]


def svg(document: Mapping[str, Any]) -> str:
    """An SVG document; relayed paths are dashed."""
    nodes = document["nodes"]
    radius = max(LEAST_RADIUS, SPACING * len(nodes) / (2 * math.pi))
    width = 2 * (radius + NODE_WIDTH / 2 + MARGIN)
    height = 2 * (radius + NODE_HEIGHT / 2 + MARGIN)
    picture = ElementTree.Element(
        "svg",
        {"xmlns": NAMESPACE, "viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}"},
    )
    _add(picture, "title", text=document["network"])
    _add(picture, "style", text=STYLE)
    places = dict(
        zip((node["id"] for node in nodes), _circle(len(nodes), radius, width, height), strict=True)
    )
    for edge in known_edges(document):
        _line(picture, document, edge, places)
    for node in nodes:
        _box(picture, node, places[node["id"]])
    ElementTree.indent(picture)
    return ElementTree.tostring(picture, encoding="unicode") + "\n"


def _circle(count: int, radius: float, width: float, height: float) -> Sequence[Place]:
    """Places on a circle, the first one at the top."""
    turns = [2 * math.pi * number / max(count, 1) for number in range(count)]
    return [(width / 2 + radius * math.sin(turn), height / 2 - radius * math.cos(turn)) for turn in turns]


def _line(
    picture: ElementTree.Element,
    document: Mapping[str, Any],
    edge: Mapping[str, Any],
    places: Mapping[str, Place],
) -> None:
    (x1, y1), (x2, y2) = places[edge["from"]], places[edge["to"]]
    kind = "direct" if edge["path"] == "direct" else "relayed"
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    _add(picture, "line", **ends, stroke=COLOURS[kind], **{"stroke-width": "1.5", "class": kind})
    at = x1 + LABEL_AT * (x2 - x1), y1 + LABEL_AT * (y2 - y1)
    _text(picture, edge_label(document, edge), at, kind="rtt")


def _box(picture: ElementTree.Element, node: Mapping[str, Any], place: Place) -> None:
    x, y = place
    corner = {"x": f"{x - NODE_WIDTH / 2:.1f}", "y": f"{y - NODE_HEIGHT / 2:.1f}"}
    size = {"width": str(NODE_WIDTH), "height": str(NODE_HEIGHT), "rx": "6"}
    kind = "self" if node["self"] else "away" if node["state"] != "connected" else "member"
    _add(picture, "rect", **corner, **size, **{"class": kind})
    lines = node_lines(node)
    for number, text in enumerate(lines):
        _text(picture, text, (x, y + 4 + 15 * (number - (len(lines) - 1) / 2)))


def _text(picture: ElementTree.Element, text: str, place: Place, kind: str | None = None) -> None:
    shown = text if len(text) <= MAX_LABEL or kind else text[: MAX_LABEL - 1] + "…"
    attributes = {"x": f"{place[0]:.1f}", "y": f"{place[1]:.1f}", **({"class": kind} if kind else {})}
    _add(picture, "text", text=shown, **attributes)


def _add(parent: ElementTree.Element, tag: str, *, text: object = None, **attributes: str) -> None:
    element = ElementTree.SubElement(parent, tag, attributes)
    if text is not None:
        element.text = "".join(char if char.isprintable() else "?" for char in str(text))
