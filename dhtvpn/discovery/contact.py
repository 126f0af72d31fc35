"""A contact: a node id at an endpoint, and the rules for endpoints that others tell us about."""

import ipaddress
import socket
from dataclasses import dataclass

from dhtvpn.discovery.directory import KEY_LENGTH
from dhtvpn.discovery.node_ids import fits, is_exempt
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

IPV4, IPV6 = 4, 6
BOTH_FAMILIES = frozenset({IPV4, IPV6})


def family_of(endpoint: Endpoint) -> int:
    """4 or 6."""
    return IPV6 if endpoint.is_ipv6 else IPV4


def address_block(endpoint: Endpoint) -> str:
    """What one user can fill: the address for IPv4, the /64 for IPv6 (RFC 6177 gives a site one at least)."""
    if not endpoint.is_ipv6:
        return endpoint.host
    return ipaddress.IPv6Address(endpoint.host).packed[:8].hex()


def prefix_of(endpoint: Endpoint) -> bytes:
    """What is assigned as a whole: the /24 of an IPv4 address (3 octets), the /64 of an IPv6 one (8)."""
    if endpoint.is_ipv6:
        return socket.inet_pton(socket.AF_INET6, endpoint.host)[:8]
    return socket.inet_pton(socket.AF_INET, endpoint.host)[:3]


def distance(a: bytes, b: bytes) -> int:
    """XOR metric (Kademlia paper, section 2.1)."""
    return int.from_bytes(a, "big") ^ int.from_bytes(b, "big")


@dataclass(frozen=True, slots=True)
class Contact:
    """``node_id`` (20 octets) answers at ``endpoint``."""

    node_id: bytes
    endpoint: Endpoint

    @property
    def family(self) -> int:
        return family_of(self.endpoint)

    @property
    def fits(self) -> bool:
        """Whether the id may be at that address (BEP 42)."""
        return fits(self.node_id, self.endpoint.host)

    def pack(self) -> bytes:
        """The node id, then the packed endpoint: 26 or 38 octets (BEP 5, BEP 32 "compact node info")."""
        return self.node_id + self.endpoint.pack()

    @classmethod
    def unpack(cls, data: bytes) -> "Contact":
        """The reverse of :meth:`pack`. Raises DecodeError."""
        if len(data) < KEY_LENGTH:
            raise DecodeError("contact", f"{len(data)} bytes")
        return cls(data[:KEY_LENGTH], Endpoint.unpack(data[KEY_LENGTH:]))


def may_be_told(endpoint: Endpoint, teller: Endpoint) -> bool:
    """Whether ``teller`` may send us to ``endpoint``: a unicast address. One that is not on the internet only
    when the teller is not there either, loopback and link-local only when it lives at the same (else any
    stranger could make us talk to our own machine, and to those around it)."""
    address = ipaddress.ip_address(endpoint.host)
    if address.is_multicast or address.is_unspecified or (address.version == IPV4 and address.is_reserved):
        return False
    source = ipaddress.ip_address(teller.host)
    if address.is_loopback and not source.is_loopback:
        return False
    if address.is_link_local and not source.is_link_local:
        return False
    return is_exempt(teller.host) or not is_exempt(endpoint.host)
