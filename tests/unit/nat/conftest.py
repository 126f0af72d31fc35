"""Fixtures of the nat room: ports on loopback, and credentials for two sides."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from dhtvpn.drops import Drops
from dhtvpn.nat.port import UdpPort

OpenPort = Callable[..., Awaitable[UdpPort]]


@dataclass(frozen=True)
class SideCredentials:
    own_ufrag: str
    own_password: str = field(repr=False)
    peer_ufrag: str
    peer_password: str = field(repr=False)
    controlling: bool

    def mirrored(self) -> "SideCredentials":
        return SideCredentials(
            self.peer_ufrag, self.peer_password, self.own_ufrag, self.own_password, not self.controlling
        )


@pytest.fixture
def credentials() -> Callable[[int], SideCredentials]:
    def make(number: int = 0) -> SideCredentials:
        return SideCredentials(
            f"left{number}", f"leftpassword{number:020}", f"right{number}", f"rightpassword{number:020}", True
        )

    return make


@pytest.fixture
async def open_port() -> AsyncIterator[OpenPort]:
    opened: list[UdpPort] = []

    async def make(
        port: int | None = None,
        host_v4: str | None = "127.0.0.1",
        host_v6: str | None = "::1",
        tunnel_sockets: bool = False,
    ) -> UdpPort:
        opened.append(
            await UdpPort.open(port, host_v4, host_v6, drops=Drops(), tunnel_sockets=tunnel_sockets)
        )
        return opened[-1]

    yield make
    for port in opened:
        port.close()
