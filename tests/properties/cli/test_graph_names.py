"""Whatever members call themselves, a graph has the same nodes and edges, and no terminal obeys it."""

import html
import re
from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.cli.graph_svg import NAMESPACE, svg
from dhtvpn.cli.graph_text import dot, mermaid
from dhtvpn.cli.output import plain

HOSTILE = [
    '"]; evil [label="',
    "\x1b]0;x\x07",
    "-->",
    "<script>alert(1)</script>",
    "&#34;",
    "]]>",
    "\\",
    "a\nb",
    "|",
]
names = st.one_of(
    st.text(max_size=80), st.sampled_from(HOSTILE), st.lists(st.sampled_from(HOSTILE)).map("".join)
)
LINE = re.compile(
    r'  n\d+ \[label="[^"\\]*(\\n[^"\\]*)?"(, style=\w+)?\];|  n\d+ -- n\d+ \[label="[^"\\]*".*\];'
)
MERMAID_LINE = re.compile(r'  n\d+\["[^"]*"\]|  n\d+ (---|-\.-)\|"[^"|]*"\| n\d+')


def mesh(*called: str) -> dict[str, Any]:
    """Members of these names in a row; the ends talk through the second."""
    nodes = [
        {"id": f"id{number}", "name": name, "ipv4": None, "state": "connected", "self": number == 0}
        for number, name in enumerate(called)
    ]
    common = {"rtt_ms": 1.0, "known": "told"}
    edges = [
        {"from": f"id{number}", "to": f"id{number + 1}", "path": "direct", "through": [], **common}
        for number in range(len(called) - 1)
    ]
    ends = {"from": "id0", "to": f"id{len(called) - 1}"}
    return {
        "network": called[0],
        "nodes": nodes,
        "edges": [*edges, {**ends, "path": "relayed", "through": ["id1"], **common}],
    }


@given(names, names, names)
def test_dot(one: str, other: str, third: str) -> None:
    text = dot(mesh(one, other, third))
    head, label, _, *lines, end = text.removesuffix("\n").split("\n")
    assert (head, end, len(lines)) == ("graph mesh {", "}", 6)
    assert all(LINE.fullmatch(line) for line in lines) and '"' not in label[9:-2]
    assert text.isascii() and plain(text.replace("\n", "")) == text.replace("\n", "")
    shown = re.search(r'label="([^"]*)"', lines[1])
    assert shown is not None and html.unescape(shown[1]) == html.unescape(html.escape(plain(other or "id1")))


@given(names, names, names)
def test_mermaid(one: str, other: str, third: str) -> None:
    text = mermaid(mesh(one, other, third))
    head, *lines = text.removesuffix("\n").split("\n")
    assert head == "graph LR" and len(lines) == 6
    assert all(MERMAID_LINE.fullmatch(line) for line in lines)
    assert text.isascii() and not set("<>") & set(text)


@given(names, names, names)
def test_svg(one: str, other: str, third: str) -> None:
    text = svg(mesh(one, other, third))
    picture = ElementTree.fromstring(text)  # noqa: S314 - our own
    tags = [element.tag.removeprefix(f"{{{NAMESPACE}}}") for element in picture.iter()]
    counts = {tag: tags.count(tag) for tag in set(tags)}
    assert counts == {"svg": 1, "title": 1, "style": 1, "line": 3, "rect": 3, "text": 6}
    assert plain(text.replace("\n", "")) == text.replace("\n", "")
