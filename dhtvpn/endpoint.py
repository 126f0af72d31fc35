"""An endpoint: one numeric IP address and one UDP port, always in one spelling.

An IPv6 link-local address means a machine only together with the interface that it is on, its zone (RFC
4007). Inside this machine the zone stands in octets 2 and 3 of the address, which are zero in every
link-local address that there is (RFC 4291 section 2.5.6), so that an endpoint stays a host and a port:
``fe80:3::1`` is fe80::1 on interface 3. It comes in with :meth:`Endpoint.from_socket`, goes out with
:attr:`Endpoint.socket_address`, and no datagram carries it (docs/adr/0018-link-local.md).
"""

import ipaddress
import re
import socket
from functools import lru_cache
from typing import Final, NamedTuple

from dhtvpn.errors import DecodeError, UsageError

MAX_ZONE: Final = 0xFFFF
"""The highest interface index that an endpoint can hold. Linux counts up from 1 in each network namespace."""

_is_link_local = re.compile("fe[89ab][0-9a-f]:").match
_FE80: Final = bytes((0xFE, 0x80))
_MAX_SPLIT: Final = 1024
"""Link-local addresses whose parts are remembered."""


class Endpoint(NamedTuple):
    """A numeric host and a UDP port. ``host`` is normalised: no IPv4-mapped IPv6, no ``%``, lower case; of a
    link-local IPv6 address octets 2 and 3 are its zone, 0 where that is not known."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def is_link_local(self) -> bool:
        """Whether this is an IPv6 address of one link (fe80::/10)."""
        return _is_link_local(self.host) is not None

    @property
    def zone(self) -> int:
        """The index of the interface that a link-local address is on; 0 for every other address, and where
        that is not known: nothing can be sent there."""
        return _split(self.host)[1] if _is_link_local(self.host) else 0

    def without_zone(self) -> "Endpoint":
        """The address as others write it."""
        return Endpoint(_split(self.host)[0], self.port) if _is_link_local(self.host) else self

    def in_zone(self, zone: int) -> "Endpoint":
        """A link-local address on interface ``zone``, from 1 to MAX_ZONE; on an unknown one for another
        number. Nothing else has a zone."""
        return Endpoint(_embed(self.host, zone), self.port) if _is_link_local(self.host) else self

    @property
    def socket_address(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """As socket calls take it and give it."""
        if ":" not in self.host:
            return self.host, self.port
        if _is_link_local(self.host):
            host, zone = _split(self.host)
            return host, self.port, 0, zone
        return self.host, self.port, 0, 0

    def __str__(self) -> str:
        if not self.is_ipv6:
            return f"{self.host}:{self.port}"
        if zone := self.zone:
            return f"[{_split(self.host)[0]}%{zone}]:{self.port}"
        return f"[{self.host}]:{self.port}"

    @classmethod
    def from_socket(cls, address: tuple[str, int] | tuple[str, int, int, int]) -> "Endpoint":
        """What a socket call returned, in our spelling. Never raises on an address of the kernel's."""
        host, port = address[0], address[1]
        host = host.partition("%")[0]
        if host.startswith("::ffff:") and "." in host:
            host = host[7:]
        elif _is_link_local(host):
            host = _embed(host, address[3] if len(address) == 4 else 0)
        return cls(host, port)

    def pack(self) -> bytes:
        """4 or 16 bytes of address, then the port, big-endian: 6 or 18 bytes, for others: without a zone."""
        return self.without_zone().pack_local()

    def pack_local(self) -> bytes:
        """Like :meth:`pack`, with the zone: for other processes of this machine."""
        return ipaddress.ip_address(self.host).packed + self.port.to_bytes(2, "big")

    @classmethod
    def unpack(cls, data: bytes) -> "Endpoint":
        """The reverse of :meth:`pack`. Raises DecodeError("endpoint"), also where somebody names a zone: that
        would be an interface of ours."""
        endpoint = cls.unpack_local(data)
        if endpoint.is_link_local and data[:8] != _FE80 + bytes(6):
            raise DecodeError("endpoint", "link-local address with a zone")
        return endpoint

    @classmethod
    def unpack_local(cls, data: bytes) -> "Endpoint":
        """The reverse of :meth:`pack_local`. Raises DecodeError("endpoint")."""
        if len(data) not in (6, 18):
            raise DecodeError("endpoint", f"{len(data)} bytes")
        address = ipaddress.ip_address(data[:-2])
        port = int.from_bytes(data[-2:], "big")
        if port == 0:
            raise DecodeError("endpoint", "port 0")
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return cls(str(address), port)


@lru_cache(maxsize=_MAX_SPLIT)
def _split(host: str) -> tuple[str, int]:
    """A link-local address as others write it, and its zone. Zone 0 for one that RFC 4291 does not know: bits
    other than those of the zone are set."""
    packed = socket.inet_pton(socket.AF_INET6, host)
    if packed[:2] != _FE80 or any(packed[4:8]):
        return host, 0
    bare = socket.inet_ntop(socket.AF_INET6, _FE80 + bytes(6) + packed[8:])
    return bare, int.from_bytes(packed[2:4], "big")


@lru_cache(maxsize=_MAX_SPLIT)
def _embed(host: str, zone: int) -> str:
    """A link-local address as others write it, put into a zone. Where there is no such zone, or the address
    has bits set that RFC 4291 wants to be zero: into zone 0."""
    packed = socket.inet_pton(socket.AF_INET6, host)
    known = 0 < zone <= MAX_ZONE and packed[:8] == _FE80 + bytes(6)
    inside = (zone if known else 0).to_bytes(2, "big")
    return socket.inet_ntop(socket.AF_INET6, _FE80 + inside + bytes(4) + packed[8:])


def split_host_port(text: str, default_port: int | None = None) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPv6]:PORT`` as typed by a person; HOST may be a name.

    Raises UsageError with a sentence that shows the right form.
    """
    form = f"{text!r} is not an address: write HOST:PORT, 192.0.2.1:4690 or [2001:db8::1]:4690"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UsageError(form)
        port_text = rest[1:]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise UsageError(form) from None
    elif text.count(":") > 1:
        raise UsageError(form)
    else:
        host, _, port_text = text.partition(":")
    if not host:
        raise UsageError(form)
    if not port_text:
        if default_port is None:
            raise UsageError(form)
        return host, default_port
    is_number = port_text.isascii() and port_text.isdigit() and len(port_text) <= 5
    if not is_number or not 0 < int(port_text) < 65536:
        raise UsageError(f"{text!r}: the port must be a number from 1 to 65535")
    return host, int(port_text)
