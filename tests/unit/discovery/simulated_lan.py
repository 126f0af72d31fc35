"""A local link in virtual time: what one sends to the group, all others hear a moment later."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from discovery_simulation import UNIX_START, fake_inspect

from dhtvpn.discovery.lan import LanDirectory
from dhtvpn.discovery.lan_wire import epoch_key
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint

SECRET = bytes(range(32))
LATENCY_S = 0.001


class SimulatedPort:
    """One machine's place on the link. ``up`` False: the cable is out."""

    def __init__(self, lan: "SimulatedLan", source: Endpoint) -> None:
        self._lan, self._source = lan, source
        self.up, self._known_up = True, False
        self.handler: Callable[[bytes, Endpoint], None] = lambda data, source: None

    @property
    def interfaces(self) -> list[str]:
        return ["eth0"] if self.up else []

    def send(self, data: bytes) -> int:
        if self.up:
            self._lan.carry(data, self._source)
        return int(self.up)

    def start_reading(self, handler: Callable[[bytes, Endpoint], None]) -> None:
        self.handler = handler

    async def survey(self) -> bool:
        came, self._known_up = self.up and not self._known_up, self.up
        return came


class SimulatedLan:
    """``sent`` is every datagram on the link with the virtual time and its source."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.ports: dict[Endpoint, SimulatedPort] = {}
        self.directories: list[LanDirectory] = []
        self.sent: list[tuple[float, Endpoint, bytes]] = []
        self.drops = Drops()
        self.lost: Callable[[bytes], bool] = lambda data: False

    def unix_time(self) -> float:
        return UNIX_START + asyncio.get_running_loop().time() - 1000.0

    def carry(self, data: bytes, source: Endpoint) -> None:
        loop = asyncio.get_running_loop()
        self.sent.append((loop.time(), source, data))
        if self.lost(data):
            return
        for endpoint, port in self.ports.items():
            if port.up:  # our own come back as well, as with IP_MULTICAST_LOOP
                loop.call_later(LATENCY_S, partial(self._hear, endpoint, data, source))

    def _hear(self, endpoint: Endpoint, data: bytes, source: Endpoint) -> None:
        if self.ports[endpoint].up:
            self.ports[endpoint].handler(data, source)

    async def machine(self, number: int, secret: bytes = SECRET, **options: Any) -> LanDirectory:
        source = Endpoint(f"10.77.0.{number}", 14690)
        port = self.ports[source] = SimulatedPort(self, source)
        rng = random.Random(number)
        options.setdefault("unix_time", self.unix_time)
        options.setdefault("inspect", fake_inspect)
        directory = LanDirectory(
            port,
            epoch_key=partial(epoch_key, secret),
            drops=self.drops,
            monotonic=asyncio.get_running_loop().time,
            random_bytes=rng.randbytes,
            uniform=rng.uniform,
            **options,
        )
        await directory.start()
        self.directories.append(directory)
        return directory

    async def close(self) -> None:
        for directory in self.directories:
            await directory.close()
