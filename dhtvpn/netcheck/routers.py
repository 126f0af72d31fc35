"""Does the router forward a port when asked? One is asked for, and given back at once.

It is a port that this process holds for the time being, and not the one that other questions are asked over:
a mapping would let in what the NAT's filter keeps out, and they are about the filter.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Final

from dhtvpn.drops import Drops
from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat.port_mapping.pcp_messages import NONCE_SIZE
from dhtvpn.nat.port_mapping.terms import Gateway, Granted, Method, RefusedError, UnusableAddressError
from dhtvpn.netcheck.report import Router
from dhtvpn.node.port_mapping import gateways_to_ask, methods_at

MAX_GATEWAYS: Final = 4
FIND_S: Final = 3.2
"""For finding out whether a router speaks a protocol: each asks for three seconds."""
MAP_S: Final = 1.5
"""For granting a mapping, by whichever protocol it speaks."""


async def ask_routers(exclude_interfaces: Sequence[str], drops: Drops) -> tuple[Router, ...]:
    """Every router of a default route. Empty where there is none that translates."""
    try:
        gateways = await gateways_to_ask(exclude_interfaces)
    except SystemRefusedError:
        return ()
    chosen = list(dict.fromkeys(gateways))[:MAX_GATEWAYS]
    with _held_port() as port:

        def methods(gateway: Gateway) -> Sequence[Method]:
            nonce = os.urandom(NONCE_SIZE)
            return methods_at(gateway, port, nonce=nonce, drops=drops, random_bytes=os.urandom)

        asking = (ask_router(gateway, methods(gateway)) for gateway in chosen)
        return tuple(await asyncio.gather(*asking))


async def ask_router(gateway: Gateway, methods: Sequence[Method]) -> Router:
    """Which of ``methods`` it speaks, and what the first that maps grants. However this ends, what was
    granted is released, and the methods are closed."""
    try:
        refusals = dict(zip(methods, await asyncio.gather(*map(_find, methods)), strict=True))
        said = {method.name: refusal for method, refusal in refusals.items() if refusal is not None}
        # who tells that its address is of no use speaks the protocol all the same
        offered = [
            method.name
            for method, refusal in refusals.items()
            if refusal is None or isinstance(refusal, UnusableAddressError)
        ]
        protocol, granted = await _map([method for method in methods if method.name not in said], said)
        double_nat = any(isinstance(refusal, UnusableAddressError) for refusal in said.values())
        return Router(
            gateway=str(gateway.address),
            own=str(gateway.own),
            offered=tuple(offered),
            protocol=protocol,
            external=None if granted is None else granted.external,
            double_nat=double_nat and granted is None,
            detail="" if granted is not None else _detail(said, offered),
        )
    finally:
        await asyncio.gather(*(method.release() for method in methods), return_exceptions=True)
        for method in methods:
            method.close()


async def _find(method: Method) -> RefusedError | None:
    try:
        async with asyncio.timeout(FIND_S):
            await method.find()
    except RefusedError as refusal:
        return refusal
    except TimeoutError:
        return RefusedError("no answer in time")
    return None


async def _map(methods: Sequence[Method], said: dict[str, RefusedError]) -> tuple[str | None, Granted | None]:
    """The first of ``methods`` that maps, and what; refusals are added to ``said``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MAP_S):
            for method in methods:
                said[method.name] = RefusedError("it takes too long")
                try:
                    granted = await method.map()
                except RefusedError as refusal:
                    said[method.name] = refusal
                else:
                    del said[method.name]
                    return method.name, granted
    return None, None


def _detail(said: dict[str, RefusedError], offered: Sequence[str]) -> str:
    """What those say that speak to us; where none does, all."""
    names = set(offered) or set(said)
    unusable = [str(refusal) for refusal in said.values() if isinstance(refusal, UnusableAddressError)]
    if unusable:
        return unusable[0]
    return "; ".join(f"{name}: {refusal}" for name, refusal in said.items() if name in names)


@contextlib.contextmanager
def _held_port() -> Iterator[int]:
    """The number of a free UDP port, which stays ours meanwhile."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("", 0))
        yield int(held.getsockname()[1])
