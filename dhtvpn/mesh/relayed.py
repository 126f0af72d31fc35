"""Places beyond a relay, written as endpoints: ``[100::via:peer]:1`` is peer *peer* through relay *via*.

A peer behind a relay is no address that a socket could send to. Yet everything that keeps, compares and hands
on endpoints (the handshake core, the engine, the path MTU) works for it, once it has one. So it gets one out
of RFC 6666's discard prefix, 100::/64, where nobody lives: no candidate of a record may be in it
(``Surroundings.may_send_to``), no datagram is sent there, and one that claims to come from there is dropped.
"""

from ipaddress import IPv6Address
from typing import Final, NamedTuple

from dhtvpn.endpoint import Endpoint

_PREFIX: Final = 0x0100 << 112
_PORT: Final = 1
_START: Final = "100::"
_MASK: Final = 0xFFFFFFFF


class Place(NamedTuple):
    """Peer ``peer`` through relay ``via``: numbers of this node's own, below 2**32."""

    via: int
    peer: int


def relayed(via: int, peer: int) -> Endpoint:
    """The endpoint that stands for peer number ``peer`` through relay number ``via``."""
    return Endpoint(str(IPv6Address(_PREFIX | (via & _MASK) << 32 | peer & _MASK)), _PORT)


def is_relayed(endpoint: Endpoint | None) -> bool:
    """Whether ``endpoint`` stands for a place beyond a relay."""
    return endpoint is not None and place_of(endpoint) is not None


def place_of(endpoint: Endpoint) -> Place | None:
    """The reverse of :func:`relayed`; None for the endpoint of a socket."""
    if not endpoint.host.startswith(_START):
        return None
    number = int(IPv6Address(endpoint.host)) ^ _PREFIX
    return Place(number >> 32, number & _MASK) if number < 1 << 64 else None
