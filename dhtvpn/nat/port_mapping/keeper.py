"""Keeps one mapping of the node's port: searches the gateway for a protocol, maps, renews, starts over.

All protocols are searched for at the same time, which makes nothing on the gateway. Then one is asked for a
mapping: the best that has answered, once better ones have had half a second to show up.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from dhtvpn.nat.port_mapping.terms import (
    MIN_RENEW_S,
    Gateway,
    Granted,
    Method,
    RefusedError,
    UnusableAddressError,
)

log = logging.getLogger(__name__)

HEAD_START_S: Final = 0.5
"""How long a protocol that has answered waits for a better one."""
RETRY_S: Final = (30.0, 120.0, 600.0, 1800.0)
"""Pauses after a search without success; the last one repeats. A network change ends them at once."""
RENEWAL_RETRY_S: Final = 20.0
"""Pause between renewals that fail, as long as the mapping lasts."""
HEARD_PAUSE_S: Final = 5.0
"""Announcements can be forged by anybody on the link: one in this time is followed."""


class Keeper:
    """One gateway and one of our addresses. :meth:`run` until cancelled, then :meth:`release`, then
    :meth:`close`. ``changed`` is called whenever what is granted, or the condition, has changed."""

    def __init__(
        self,
        gateway: Gateway,
        methods: Callable[[], Sequence[Method]],
        *,
        changed: Callable[[], None],
        fraction: Callable[[], float],
    ) -> None:
        """``methods``: makes every protocol anew for a search, best first; ``fraction``: random, 0 to 1."""
        self.gateway = gateway
        self.granted: Granted | None = None
        self.protocol: str | None = None
        self.detail = "searching"
        """Why there is no mapping, for a person."""
        self.double_nat = False
        """The gateway is itself behind a NAT, as far as it says."""
        self._make_methods = methods
        self._methods: Sequence[Method] = ()
        self._method: Method | None = None
        self._expires = 0.0
        self._changed, self._fraction = changed, fraction
        self._wanted = asyncio.Event()
        self._heard_at = float("-inf")

    @property
    def lifetime_left_s(self) -> float | None:
        """Until the gateway forgets the mapping, unless it is renewed before; None where there is none."""
        if self.granted is None:
            return None
        return max(0.0, self._expires - asyncio.get_running_loop().time())

    def look_again(self) -> None:
        """Renew or search at once: the network has changed."""
        self._wanted.set()

    def heard(self, announcement: bytes) -> None:
        """The gateway told everybody that it has started, or that it has another address."""
        now = asyncio.get_running_loop().time()
        if self._method is None or now - self._heard_at < HEARD_PAUSE_S:
            return
        self._heard_at = now
        if self._method.heard(announcement):
            log.info("the gateway %s may have lost its mappings: renewing", self.gateway.address)
            self._wanted.set()

    async def run(self) -> None:
        """Have a mapping, as long as the gateway gives one."""
        failures = 0
        while True:
            try:
                method, granted = await self._search()
            except RefusedError as error:
                self._lost(str(error), double_nat=isinstance(error, UnusableAddressError))
                await self._pause(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
                continue
            failures = 0
            await self._keep(method, granted)

    async def release(self) -> None:
        """Take the mapping back: within a second, or not at all."""
        self.granted, self.protocol = None, None
        if self._method is not None:
            await self._method.release()

    def close(self) -> None:
        """Release the sockets."""
        self._close_all_but(None)

    async def _search(self) -> tuple[Method, Granted]:
        """The first protocol that gives a mapping. Raises RefusedError with what each has said."""
        self.close()
        self._methods = self._make_methods()
        left = list(self._methods)
        searches = {method.name: asyncio.create_task(method.find()) for method in left}
        start_over = asyncio.get_running_loop().time() + HEAD_START_S
        refusals: list[str] = []
        chosen: Method | None = None
        try:
            while left:
                method = await self._next(left, searches, start_over)
                left.remove(method)
                try:
                    await searches[method.name]
                    self._method = method
                    granted = await method.map()
                except UnusableAddressError:
                    raise
                except asyncio.CancelledError:
                    chosen = self._method  # asked already, maybe: release() is yet to take the mapping back
                    raise
                except RefusedError as error:
                    refusals.append(f"{method.name}: {error}")
                else:
                    chosen = method
                    return method, granted
        finally:
            for search in searches.values():
                search.cancel()
            await asyncio.gather(*searches.values(), return_exceptions=True)
            self._close_all_but(chosen)
        raise RefusedError("; ".join(refusals))

    def _close_all_but(self, chosen: Method | None) -> None:
        for method in self._methods:
            if method is not chosen:
                method.close()
        self._methods = () if chosen is None else (chosen,)
        self._method = chosen

    async def _next(
        self, methods: Sequence[Method], searches: dict[str, asyncio.Task[None]], start_over: float
    ) -> Method:
        """Of those that have answered, the best; another than the very best only after the head start."""
        loop = asyncio.get_running_loop()
        while True:
            answered = [method for method in methods if searches[method.name].done()]
            early = loop.time() < start_over
            if answered and (answered[0] is methods[0] or not early):
                return answered[0]
            running = [searches[method.name] for method in methods if method not in answered]
            timeout_s = max(0.0, start_over - loop.time()) if answered else None
            await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def _keep(self, method: Method, granted: Granted) -> None:
        """Renew until the gateway does so no more."""
        loop = asyncio.get_running_loop()
        while True:
            self._expires = loop.time() + granted.lifetime_s
            is_new = self.granted is None or self.granted.external != granted.external
            self.granted, self.protocol, self.detail, self.double_nat = granted, method.name, "", False
            if is_new:
                self._changed()
            # RFC 6887 section 11.2.1: between 1/2 and 5/8 of the lifetime
            await self._pause(max(MIN_RENEW_S, granted.lifetime_s * (0.5 + 0.125 * self._fraction())))
            while True:
                try:
                    granted = await method.map()
                    break
                except RefusedError as error:
                    log.info("the mapping at %s is not renewed: %s", self.gateway.address, error)
                    left_s = self._expires - loop.time()
                    if left_s <= 0 or isinstance(error, UnusableAddressError):
                        self._lost(
                            f"{method.name}: {error}", double_nat=isinstance(error, UnusableAddressError)
                        )
                        await method.release()
                        return
                await self._pause(min(left_s, RENEWAL_RETRY_S))

    def _lost(self, why: str, *, double_nat: bool) -> None:
        before = (self.granted, self.detail)
        self.granted, self.protocol, self.detail, self.double_nat = None, None, why, double_nat
        if before != (None, why):
            self._changed()

    async def _pause(self, duration_s: float) -> None:
        """Wait, or until somebody wants us to look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(duration_s):
                await self._wanted.wait()
        self._wanted.clear()
