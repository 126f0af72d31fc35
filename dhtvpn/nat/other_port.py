"""A second UDP port, from which filter tests are answered. It only sends: the kernel drops what comes."""

import contextlib
import socket
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.heard_at import Ancillary
from dhtvpn.nat.socket_filter import NOTHING, attach

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class OtherPort:
    """Opened per family when it is first needed."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def send(self, data: bytes, endpoint: Endpoint, ancillary: Ancillary) -> int | None:
        """Send now, and return the port that it left from; None where the kernel refused."""
        try:
            opened = self._open(6 if endpoint.is_ipv6 else 4)
            opened.sendmsg([data], ancillary, 0, endpoint.socket_address)
        except OSError:
            return None
        return int(opened.getsockname()[1])

    def close(self) -> None:
        for opened in self._sockets.values():
            opened.close()
        self._sockets.clear()

    def _open(self, family: int) -> socket.socket:
        opened = self._sockets.get(family)
        if opened is None:
            opened = socket.socket(_FAMILIES[family], socket.SOCK_DGRAM)
            opened.setblocking(False)
            if family == 6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            with contextlib.suppress(OSError):
                attach(opened, NOTHING)
            opened.bind(("::" if family == 6 else "0.0.0.0", 0))  # noqa: S104 - as the port itself
            self._sockets[family] = opened
        return opened
