"""URLs that a gateway gives us: only ones on the gateway itself are followed. Pure.

Whoever could send us elsewhere could have a node of ours ask any machine for any path.
"""

import re
from typing import Final, NamedTuple

from dhtvpn.errors import DecodeError

MAX_URL: Final = 512
"""Characters, ours."""

_ABSOLUTE: Final = re.compile(r"http://(\d{1,3}(?:\.\d{1,3}){3})(?::(\d{1,5}))?(/.*)?", re.IGNORECASE)
_PATH: Final = re.compile(r"/[!-~]*")


class GatewayUrl(NamedTuple):
    """A port of the gateway, and a path with its query, which starts with a slash."""

    port: int
    path: str


def parse(text: str, gateway: str) -> GatewayUrl:
    """An absolute URL. Raises DecodeError("upnp_url") unless it is plain HTTP to the address ``gateway``."""
    found = _ABSOLUTE.fullmatch(text) if len(text) <= MAX_URL else None
    if found is None or found[1] != gateway:
        raise DecodeError("upnp_url")
    port, path = int(found[2] or 80), found[3] or "/"
    if not 0 < port < 65536 or not _PATH.fullmatch(path):
        raise DecodeError("upnp_url")
    return GatewayUrl(port, path.partition("#")[0])


def resolve(text: str, base: GatewayUrl, gateway: str) -> GatewayUrl:
    """``text`` as found in a document at ``base`` (RFC 3986 section 5, without dot segments).

    Raises DecodeError("upnp_url").
    """
    if len(text) > MAX_URL:
        raise DecodeError("upnp_url")
    if "://" in text or text.startswith("//"):
        return parse(text, gateway)
    path = text if text.startswith("/") else base.path.partition("?")[0].rpartition("/")[0] + "/" + text
    if not _PATH.fullmatch(path):
        raise DecodeError("upnp_url")
    return GatewayUrl(base.port, path.partition("#")[0])
