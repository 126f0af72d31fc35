"""Discovery on the local link: Neighbours over a multicast port, on whatever interfaces there are now."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from dhtvpn.discovery.neighbours import Manner, Neighbours
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError

log = logging.getLogger(__name__)

LAN: Final = Manner(
    room="lan",
    ask_after=(0.02, 0.12),
    ask_again=(1.0, 2.0),
    ask_until_heard=False,
    answer_after=(0.02, 0.12),
    answer_pause=0.25,
    lookup_s=0.5,
)
"""As RFC 6762 (sections 5.2 and 6) has it, but for the pause: a quarter of a second, not one, lets somebody
who joins right after another be answered at once. Rates are limited per node besides."""

SURVEY_S: Final = 5.0
"""How often the interfaces are looked at: a cable or a Wi-Fi that comes is used this soon."""


class MulticastPort(Protocol):
    """What this needs of nat.multicast.MulticastPort."""

    @property
    def interfaces(self) -> list[str]:
        """Names of those in use."""

    def start_reading(self, handler: Callable[[bytes, Endpoint], None]) -> None:
        """Let datagrams in."""

    def send(self, data: bytes) -> int:
        """To the group on every interface; returns on how many and in how many families it left."""

    async def survey(self) -> bool:
        """Look at the interfaces; True when there are new ones. Raises SystemRefusedError."""


class LanDirectory(Neighbours):
    """The members on the local links. ``start`` after it has been made, ``close`` at the end."""

    def __init__(self, port: MulticastPort, *, epoch_key: Callable[[int], bytes], **options: Any) -> None:
        super().__init__(port.send, LAN, epoch_key=epoch_key, **options)
        self._port = port
        self._surveying: asyncio.Task[None] | None = None

    @property
    def interfaces(self) -> list[str]:
        """Those that it speaks and listens on."""
        return self._port.interfaces

    @property
    def can_ask(self) -> bool:
        return bool(self._port.interfaces)

    async def start(self) -> None:
        """Listen, join the groups, and follow interfaces that come and go."""
        self._port.start_reading(self.handle_datagram)
        await self._survey()
        if self._surveying is None:
            self._surveying = self._tasks.spawn(self._keep_surveying())

    async def _keep_surveying(self) -> None:
        while True:
            await asyncio.sleep(SURVEY_S)
            await self._survey()

    async def _survey(self) -> None:
        try:
            if await self._port.survey():
                self.ask()
        except SystemRefusedError as error:
            log.warning("LAN discovery: %s", error)
