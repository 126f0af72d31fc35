"""Looks up the names given, and waits no longer than it says for a resolver that is gone.

A call into the C library cannot be ended. The event loop's own threads would be waited for at the end of the
process; those here are left behind.
"""

import asyncio
import socket
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from ipaddress import ip_address

from dhtvpn.endpoint import Endpoint, split_host_port
from dhtvpn.node.bootstrap import DEFAULT_PORT


async def resolve(
    names: Sequence[str], families: Collection[int], timeout_s: float
) -> dict[str, list[Endpoint]]:
    """Each name's addresses, in ``families`` (4 and 6) only; those not found in time have none."""
    found = await asyncio.gather(*(_addresses(name, timeout_s) for name in names))
    return {
        name: [endpoint for endpoint in endpoints if (6 if endpoint.is_ipv6 else 4) in families]
        for name, endpoints in zip(names, found, strict=True)
    }


async def _addresses(name: str, timeout_s: float) -> list[Endpoint]:
    host, port = split_host_port(name, DEFAULT_PORT)
    with suppress(ValueError):
        return [Endpoint(str(ip_address(host)), port)]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Endpoint]] = loop.create_future()

    def settle(endpoints: list[Endpoint]) -> None:
        if not answer.done():
            answer.set_result(endpoints)

    def look_up() -> None:
        endpoints: list[Endpoint] = []
        with suppress(OSError, UnicodeError):
            for item in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
                endpoints.append(Endpoint.from_socket((str(item[4][0]), int(item[4][1]))))
        with suppress(RuntimeError):  # the loop has ended long ago
            loop.call_soon_threadsafe(settle, list(dict.fromkeys(endpoints)))

    threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            return await answer
    except TimeoutError:
        return []
