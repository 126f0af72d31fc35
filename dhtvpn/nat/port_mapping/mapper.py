"""All port mappings of a node: one keeper for each gateway and address of ours, as the routes say."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat.port_mapping.keeper import Keeper
from dhtvpn.nat.port_mapping.terms import Gateway, Method

log = logging.getLogger(__name__)

MAX_GATEWAYS: Final = 6
"""Pairs of gateway and own address that are served: IPv4, and the IPv6 addresses of a link."""
LOOK_S: Final = 60.0
"""How often the routes are read where nobody told of a change."""
RELEASE_S: Final = 1.0
"""How long leaving may wait for the gateways."""


@dataclass(frozen=True)
class Condition:
    """One gateway as a person sees it. ``external`` and ``protocol`` are None where there is no mapping, and
    ``detail`` says why."""

    gateway: str
    own: str
    protocol: str | None
    external: Endpoint | None
    lifetime_left_s: float | None
    double_nat: bool
    detail: str


class Listener(Protocol):
    """Hears announcements until it is closed."""

    def close(self) -> None: ...


class PortMapper:
    """:meth:`run` until cancelled, then :meth:`release`."""

    def __init__(
        self,
        *,
        gateways: Callable[[], Awaitable[Sequence[Gateway]]],
        methods: Callable[[Gateway], Sequence[Method]],
        listen: Callable[[Callable[[bytes, str], None]], Listener],
        fraction: Callable[[], float],
        say: Callable[[str, str], None],
    ) -> None:
        """``gateways``: those there are now; may raise SystemRefusedError. ``methods``: the protocols to try
        at one, best first. ``fraction``: random, 0 to 1. ``say``: gets (kind, text) for a person."""
        self._gateways, self._make_methods, self._listen = gateways, methods, listen
        self._fraction, self._say = fraction, say
        self._keepers: dict[Gateway, Keeper] = {}
        self._tasks: dict[Gateway, asyncio.Task[None]] = {}
        self._said: dict[Gateway, str] = {}
        self._wanted = asyncio.Event()
        self._on_change: Callable[[], None] = lambda: None
        self._public_endpoints: Callable[[], Sequence[Endpoint]] = lambda: ()
        self._public_hosts: frozenset[str] = frozenset()
        self.detail = "searching"
        """Why there is not even a gateway to ask."""

    def attach(
        self, changed: Callable[[], None], public_endpoints: Callable[[], Sequence[Endpoint]] = lambda: ()
    ) -> None:
        """Call ``changed`` whenever :attr:`endpoints` or :meth:`conditions` are others. ``public_endpoints``:
        where strangers see this node now; when all are at other addresses, routers are asked again."""
        self._on_change, self._public_endpoints = changed, public_endpoints

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where gateways say that they forward to us, other than our own addresses."""
        found = [
            keeper.granted.external
            for keeper in self._keepers.values()
            if keeper.granted is not None and keeper.granted.external.host != str(keeper.gateway.own)
        ]
        return tuple(dict.fromkeys(found))

    def conditions(self) -> list[Condition]:
        """Each gateway, and what it does for us."""
        return [
            Condition(
                gateway=str(gateway.address),
                own=str(gateway.own),
                protocol=keeper.protocol,
                external=None if keeper.granted is None else keeper.granted.external,
                lifetime_left_s=keeper.lifetime_left_s,
                double_nat=keeper.double_nat,
                detail=keeper.detail,
            )
            for gateway, keeper in self._keepers.items()
        ]

    def look_again(self) -> None:
        """The network has changed: read the routes, and ask every gateway again at once."""
        self._wanted.set()

    async def run(self) -> None:
        """Keep mappings until cancelled."""
        listener: Listener | None = None
        try:
            while True:
                changed = self._wanted.is_set() or self._seen_elsewhere()
                self._wanted.clear()
                await self._follow()
                if self._keepers and listener is None:
                    listener = self._listen(self._heard)
                if changed:
                    for keeper in self._keepers.values():
                        keeper.look_again()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._wanted.wait()
        finally:
            if listener is not None:
                listener.close()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def release(self) -> None:
        """Take back every mapping, in RELEASE_S at most, and let go of the sockets."""
        keepers = list(self._keepers.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await asyncio.gather(*(keeper.release() for keeper in keepers))
        for keeper in keepers:
            keeper.close()
        self._keepers.clear()

    def _seen_elsewhere(self) -> bool:
        """Whether strangers see this node at none of the addresses at which they did before."""
        hosts = frozenset(endpoint.host for endpoint in self._public_endpoints())
        before, self._public_hosts = self._public_hosts, hosts or self._public_hosts
        return bool(before and hosts) and before.isdisjoint(hosts)

    async def _follow(self) -> None:
        """Start and end keepers as gateways come and go."""
        try:
            found = list(dict.fromkeys(await self._gateways()))[:MAX_GATEWAYS]
        except SystemRefusedError as error:
            self.detail = str(error)
            return
        gone = self._keepers.keys() - set(found)
        for gateway in gone:
            task, keeper = self._tasks.pop(gateway), self._keepers.pop(gateway)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            keeper.close()
            self._said.pop(gateway, None)
        for gateway in found:
            if gateway not in self._keepers:
                self._start(gateway)
        self.detail = "" if found else "behind no router that translates"
        if gone:
            self._on_change()

    def _start(self, gateway: Gateway) -> None:
        keeper = Keeper(
            gateway,
            lambda: self._make_methods(gateway),
            changed=lambda: self._changed(gateway),
            fraction=self._fraction,
        )
        self._keepers[gateway] = keeper
        task = asyncio.create_task(keeper.run(), name=f"port mapping at {gateway.address}")
        task.add_done_callback(_report_bug)
        self._tasks[gateway] = task

    def _heard(self, data: bytes, source: str) -> None:
        for gateway, keeper in self._keepers.items():
            if str(gateway.address) == source:
                keeper.heard(data)

    def _changed(self, gateway: Gateway) -> None:
        keeper = self._keepers[gateway]
        text = self._sentence(keeper)
        if text is None:
            log.info("no port mapping at %s: %s", gateway.address, keeper.detail)
        elif self._said.get(gateway) != text:
            self._say("nat", text)
        if text is not None:
            self._said[gateway] = text
        self._on_change()

    def _sentence(self, keeper: Keeper) -> str | None:
        """What is worth a person's attention: silence of a gateway is not, unless it had a mapping."""
        if keeper.granted is not None:
            if keeper.granted.external.host == str(keeper.gateway.own):
                return f"the router lets in what is sent to {keeper.granted.external} ({keeper.protocol})"
            return f"the router forwards {keeper.granted.external} to this node ({keeper.protocol})"
        if keeper.double_nat:
            return f"no port mapping: {keeper.detail}: there is another NAT in front of it"
        if "forwards" in self._said.get(keeper.gateway, ""):
            return f"the router forwards no port any more ({keeper.detail})"
        return None


def _report_bug(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("a port mapping failed", exc_info=error)
