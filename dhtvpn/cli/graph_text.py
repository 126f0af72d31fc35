"""The mesh as text for other programs: Graphviz's DOT and Mermaid.

Names are what other members chose. Every character of a label that is not plain is written in the format's
own escape, so that no name can end its quotes or add a node. Nodes are called n0, n1..., never by a name.
"""

from collections.abc import Mapping
from typing import Any, Final

from dhtvpn.cli.views import milliseconds

PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -.,:_()")
VOLUNTEER: Final = "volunteer"


def dot(document: Mapping[str, Any]) -> str:
    """An undirected graph for Graphviz: direct paths are solid, relayed ones dashed."""
    numbers = _numbers(document)
    lines = ["graph mesh {", f'  label="{_dot_text(document["network"])}";', "  node [shape=box];"]
    for node in document["nodes"]:
        style = ", style=bold" if node["self"] else ", style=dashed" if node["state"] != "connected" else ""
        label = "\\n".join(map(_dot_text, node_lines(node)))
        lines.append(f'  {numbers[node["id"]]} [label="{label}"{style}];')
    for edge in known_edges(document):
        style = "" if edge["path"] == "direct" else ", style=dashed"
        ends = f"{numbers[edge['from']]} -- {numbers[edge['to']]}"
        lines.append(f'  {ends} [label="{_dot_text(edge_label(document, edge))}"{style}];')
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(document: Mapping[str, Any]) -> str:
    """A flowchart for Mermaid: direct paths are solid, relayed ones dotted."""
    numbers = _numbers(document)
    lines = ["graph LR"]
    for node in document["nodes"]:
        label = "<br/>".join(map(_mermaid_text, node_lines(node)))
        lines.append(f'  {numbers[node["id"]]}["{label}"]')
    for edge in known_edges(document):
        line = "---" if edge["path"] == "direct" else "-.-"
        label = _mermaid_text(edge_label(document, edge))
        lines.append(f'  {numbers[edge["from"]]} {line}|"{label}"| {numbers[edge["to"]]}')
    return "\n".join(lines) + "\n"


def node_lines(node: Mapping[str, Any]) -> list[str]:
    """What stands in a node: its name or id, and its address."""
    return [str(node["name"] or node["id"]), *([str(node["ipv4"])] if node["ipv4"] else [])]


def edge_label(document: Mapping[str, Any], edge: Mapping[str, Any]) -> str:
    """The round trip, and whom the path leads through."""
    names = {node["id"]: node["name"] or node["id"] for node in document["nodes"]}
    parts = [] if edge["rtt_ms"] is None else [milliseconds(edge["rtt_ms"])]
    if edge["path"] != "direct":
        through = ", ".join(str(names.get(each, each)) for each in edge["through"])
        parts.append(f"via {through or VOLUNTEER}")
    return " ".join([*parts, *(["(likely)"] if edge["known"] == "likely" else [])])


def known_edges(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Edges whose two ends are nodes of the document."""
    ids = {node["id"] for node in document["nodes"]}
    return [edge for edge in document["edges"] if edge["from"] in ids and edge["to"] in ids]


def _numbers(document: Mapping[str, Any]) -> dict[str, str]:
    return {node["id"]: f"n{number}" for number, node in enumerate(document["nodes"])}


def _dot_text(text: object) -> str:
    """Inside double quotes DOT reads HTML's character references."""
    return _escaped(text, "&#{};")


def _mermaid_text(text: object) -> str:
    """Mermaid writes a character by its number as #NNN;."""
    return _escaped(text, "#{};")


def _escaped(text: object, reference: str) -> str:
    printable = "".join(char if char.isprintable() else "?" for char in str(text))
    return "".join(char if char in PLAIN else reference.format(ord(char)) for char in printable)
