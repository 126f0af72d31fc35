"""The description of a UPnP gateway: which services it has that map ports, and where. Pure."""

from typing import Final, NamedTuple

from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping import strict_xml
from dhtvpn.nat.port_mapping.url import GatewayUrl, parse, resolve

_PREFIX: Final = "urn:schemas-upnp-org:service:"
SERVICES: Final = tuple(
    _PREFIX + name for name in ("WANIPConnection:2", "WANIPConnection:1", "WANPPPConnection:1")
)
"""Best first: the second version can choose a free port itself."""

MAX_SERVICES: Final = 4
"""Services of one gateway that are tried; one with several uplinks has some."""


class Service(NamedTuple):
    """A service that maps ports. ``kind``: its full type, one of SERVICES."""

    kind: str
    control: GatewayUrl

    @property
    def chooses_ports(self) -> bool:
        """Whether it has AddAnyPortMapping (WANIPConnection:2 section 2.5.19)."""
        return self.kind.endswith(":2")


def decode(document: bytes, location: GatewayUrl, gateway: str) -> list[Service]:
    """The services in a description that was read at ``location``, best first; may be empty.

    Raises DecodeError: xml_size, xml_format, xml_doctype, upnp_url.
    """
    root = strict_xml.parse(document)
    base = location
    if text := root.child_text("URLBase"):  # version 1.0 of the architecture
        base = parse(text, gateway)
    found: list[Service] = []
    for element in root.find_all("service"):
        kind = element.child_text("serviceType")
        if kind not in SERVICES:
            continue
        try:
            service = Service(kind, resolve(element.child_text("controlURL"), base, gateway))
        except DecodeError:
            continue  # one that leads elsewhere does not spoil the others
        if service not in found:
            found.append(service)
    return sorted(found, key=lambda service: SERVICES.index(service.kind))[:MAX_SERVICES]
