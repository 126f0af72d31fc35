"""SSDP, the search for a UPnP gateway (UPnP Device Architecture 2.0 section 1.3). Pure."""

from typing import Final

from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping.url import GatewayUrl, parse

GROUP: Final = "239.255.255.250"
PORT: Final = 1900
MAX_MESSAGE: Final = 1536
"""Octets of an answer, ours: it has to fit one frame; common ones have 300 to 500."""

TARGETS: Final = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
)
"""What we look for. A version 2 has to answer a search for version 1 too; not all of them do."""


def search_requests(host: str = GROUP) -> list[bytes]:
    """One M-SEARCH for each of TARGETS; ``host`` is whom it goes to, the group or one gateway."""
    return [
        (
            f"M-SEARCH * HTTP/1.1\r\nHOST: {host}:{PORT}\r\n"
            f'MAN: "ssdp:discover"\r\nMX: 1\r\nST: {target}\r\n\r\n'
        ).encode("ascii")
        for target in TARGETS
    ]


def decode(data: bytes, gateway: str) -> GatewayUrl:
    """Where the description is, from an answer. Raises DecodeError: ssdp_format, upnp_url."""
    if len(data) > MAX_MESSAGE or not data.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise DecodeError("ssdp_format")
    fields: dict[bytes, bytes] = {}
    for line in data.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    if not any(fields.get(b"st") == target.encode() for target in TARGETS):
        raise DecodeError("ssdp_format", "not what we looked for")
    return parse(fields.get(b"location", b"").decode("latin-1"), gateway)
