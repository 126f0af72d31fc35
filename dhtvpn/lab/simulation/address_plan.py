"""Which address each simulated site has: a /24 of its own, anywhere in the public IPv4 space.

198.18.0.0/15, meant for laboratories, has only 512 /24s; a simulation needs more, and ids that are bound
to addresses (BEP 42) shall spread as they do out there. The addresses look public, but no datagram of a
simulation ever reaches a socket.
"""

import ipaddress
from collections.abc import Iterator
from functools import cache

from dhtvpn.endpoint import Endpoint

PORT = 4690
MAX_SITES = 1 << 20

_STEP = 0x9E3779
"""Odd, so that its multiples modulo 2^24 visit every /24 once; near 2^24 times the golden ratio, so that
neighbours in number are far apart in address."""


def endpoints(first: int, count: int) -> list[Endpoint]:
    """The endpoints of sites ``first`` to ``first + count - 1``."""
    while len(_allotted) < first + count:
        _allotted.append(next(_rest()))
    return _allotted[first : first + count]


_allotted: list[Endpoint] = []


@cache
def _rest() -> Iterator[Endpoint]:
    return _plan()


def _plan() -> Iterator[Endpoint]:
    for number in range(1, 1 << 24):
        prefix = number * _STEP % (1 << 24)
        address = ipaddress.IPv4Address(prefix << 8 | number * 37 % 254 + 1)
        if address.is_global and not address.is_multicast:
            yield Endpoint(str(address), PORT)
