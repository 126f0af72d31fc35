"""The words that all of the room uses: a gateway, what it granted, and its refusal."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple, Protocol

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DhtVpnError

Address = IPv4Address | IPv6Address

LIFETIME_S: Final = 1200
"""Seconds asked for. Less than the 7,200 of RFC 6886 section 3.3: a mapping that nobody released is gone
sooner, and renewing it every ten minutes finds out soon that a router has forgotten it."""

MIN_RENEW_S: Final = 15.0
"""A gateway that grants less than twice this is not asked more often for it."""

ROOM: Final = "port_mapping"
"""Name of the room in the drop counters."""


class Gateway(NamedTuple):
    """A default router on a link of ours."""

    address: Address
    """Where it is asked: IPv4, or IPv6, which is usually link-local."""
    interface: int
    """The kernel's number of the link."""
    own: Address
    """Our address on that link, which is to be reached."""


@dataclass(frozen=True)
class Granted:
    """What a gateway says it forwards to us, and for how long (seconds, never more than LIFETIME_S)."""

    external: Endpoint
    lifetime_s: float


class RefusedError(DhtVpnError):
    """The gateway does not map by this protocol. ``str(error)`` is a few words for a person."""


class UnusableAddressError(RefusedError):
    """The gateway's own external address is no public one: no other protocol will change that."""


class Method(Protocol):
    """One protocol at one gateway for our one port. Made again for each search."""

    name: str

    async def find(self) -> None:
        """Find out, without making anything, whether the gateway speaks the protocol. Raises RefusedError."""
        ...

    async def map(self) -> Granted:
        """Make the mapping, or renew it. Raises RefusedError."""
        ...

    def heard(self, announcement: bytes) -> bool:
        """Whether what the gateway told everybody means that it may have lost its mappings."""
        ...

    async def release(self) -> None:
        """Take the mapping back, as far as the gateway lets us within a second."""
        ...

    def close(self) -> None:
        """Release the sockets."""
        ...
