"""XML from the LAN, read by expat under caps. Pure.

A document type, and with it every entity, is refused before anything of it is expanded (the "billion
laughs"); size, depth and number of elements are capped, so that no document costs more than reading it.
"""

from typing import Any, Final
from xml.parsers import expat

from dhtvpn.errors import DecodeError

MAX_DOCUMENT: Final = 65536
"""Octets, ours. Descriptions of gateways have 3 to 20 KB, answers less than 1 KB."""
MAX_ELEMENTS: Final = 2000
MAX_DEPTH: Final = 24
MAX_TEXT: Final = 1024
"""Characters of one element's text; the rest of a longer one is left out."""


class Element:
    """An element: its name without prefix, its text without the children's, and the children."""

    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: list[Element] = []

    def find_all(self, name: str) -> list["Element"]:
        """Every element called ``name`` below this one, in the document's order."""
        found = []
        waiting = [self]
        while waiting:
            element = waiting.pop()
            if element.name == name:
                found.append(element)
            waiting.extend(reversed(element.children))
        return found

    def child_text(self, name: str) -> str:
        """The text of the first child called ``name``, without space around it; empty where there is none."""
        return next((child.text.strip() for child in self.children if child.name == name), "")


def parse(document: bytes) -> Element:
    """The root of ``document``. Raises DecodeError: xml_size, xml_format, xml_doctype."""
    if len(document) > MAX_DOCUMENT:
        raise DecodeError("xml_size")
    builder = _Builder()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.StartDoctypeDeclHandler = builder.document_type
    parser.EntityDeclHandler = builder.document_type
    try:
        parser.Parse(document.rstrip(b"\x00 \t\r\n"), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter: encodings that are not there
        raise DecodeError("xml_format") from error
    if len(builder.root.children) != 1:
        raise DecodeError("xml_format")
    return builder.root.children[0]


class _Builder:
    def __init__(self) -> None:
        self.root = Element("")
        self._open = [self.root]
        self._count = 0

    def start(self, name: str, attributes: Any) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) > MAX_DEPTH:
            raise DecodeError("xml_size", "elements")
        element = Element(name.rpartition(" ")[2])
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, name: str) -> None:
        self._open.pop()

    def characters(self, text: str) -> None:
        element = self._open[-1]
        if len(element.text) < MAX_TEXT:
            element.text += text[: MAX_TEXT - len(element.text)]

    def document_type(self, *declaration: Any) -> None:
        raise DecodeError("xml_doctype")
