"""Getting into the DHT and staying in it: bootstrap addresses, remembered contacts, retries."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from dhtvpn.discovery.sources import Dht
from dhtvpn.endpoint import Endpoint, split_host_port

log = logging.getLogger(__name__)

RETRY_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses between attempts while nobody answers; the last one repeats."""
REFRESH_S = 300.0
"""Between looks for new contacts once we are in."""
MAX_ADDRESSES = 64
"""Of the names that were given."""
MAX_FIRST = 256
"""Endpoints to begin with, remembered ones included: of those of last week most may be gone."""
DEFAULT_PORT = 4690


async def resolve(names: Sequence[str], families: frozenset[int]) -> list[Endpoint]:
    """The addresses of ``HOST:PORT`` texts, names looked up now. Names that do not resolve are skipped:
    the caller tries again later. ``families`` holds 4 and 6 as this machine has them."""
    loop = asyncio.get_running_loop()

    async def look_up(text: str) -> list[Endpoint]:
        host, port = split_host_port(text, DEFAULT_PORT)
        with contextlib.suppress(ValueError):
            return [Endpoint(str(ip_address(host)), port)]
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            log.info("bootstrap %s: %s", text, error)
            return []
        return [Endpoint.from_socket((str(item[4][0]), int(item[4][1]))) for item in found]

    answers = await asyncio.gather(*(look_up(name) for name in names))
    endpoints = [endpoint for answer in answers for endpoint in answer]
    usable = [endpoint for endpoint in endpoints if (6 if endpoint.is_ipv6 else 4) in families]
    return list(dict.fromkeys(usable))[:MAX_ADDRESSES]


async def first_endpoints(
    names: Sequence[str], remembered: Sequence[Endpoint], families: frozenset[int]
) -> list[Endpoint]:
    """Whom to ask first: the addresses given, then the contacts of earlier runs."""
    named = await resolve(names, families)
    return list(dict.fromkeys([*named, *remembered]))[:MAX_FIRST]


class Bootstrapper:
    """Keeps a directory in touch with the DHT."""

    def __init__(
        self,
        *,
        directory: Dht,
        names: Sequence[str],
        remembered: Sequence[Endpoint],
        families: frozenset[int],
        say: Callable[[str, str], None],
        answered: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._names = list(names)
        self._remembered = list(remembered)
        self._families = families
        self._say = say
        self._answered = answered

    async def endpoints(self) -> list[Endpoint]:
        """See :func:`first_endpoints`."""
        return await first_endpoints(self._names, self._remembered, self._families)

    async def run(self) -> None:
        """Bootstrap, again whenever the table has run empty; until cancelled."""
        failures, said = 0, False
        while True:
            endpoints = await self.endpoints()
            answered = await self._directory.bootstrap(endpoints) if endpoints else 0
            if answered or self._directory.size:
                failures = 0
                if not said:
                    known = self._directory.size
                    self._say("directory", f"in the DHT: {known} other node{'' if known == 1 else 's'} known")
                said = True
                self._answered()
                await self._until_empty()
                continue
            pause = RETRY_S[min(failures, len(RETRY_S) - 1)]
            failures += 1
            said = False
            if failures in (1, 4) or failures % 20 == 0:
                self._say("warning", self._nobody_answers(endpoints, pause))
            await asyncio.sleep(pause)

    async def _until_empty(self) -> None:
        waited = 0.0
        while self._directory.size and waited < REFRESH_S:
            await asyncio.sleep(RETRY_S[0])
            waited += RETRY_S[0]

    def _nobody_answers(self, endpoints: Sequence[Endpoint], pause: float) -> str:
        if not self._names and not self._remembered:
            return "no bootstrap node is known: join with --bootstrap HOST:PORT (other sources are asked)"
        if not endpoints:
            return f"{', '.join(self._names)}: no address found; trying again in {pause:.0f} s"
        listed = ", ".join(str(endpoint) for endpoint in endpoints[:3])
        more = f" and {len(endpoints) - 3} more" if len(endpoints) > 3 else ""
        return f"no answer from {listed}{more}: are they up and is UDP let through? Trying on."
