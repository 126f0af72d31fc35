"""An endpoint: one numeric IP address and one UDP port, always in one spelling."""

import ipaddress
from typing import NamedTuple

from dhtvpn.errors import DecodeError, UsageError


class Endpoint(NamedTuple):
    """A numeric host and a UDP port. ``host`` is normalised: no IPv4-mapped IPv6, no zone, lower case."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"

    @classmethod
    def from_socket(cls, address: tuple[str, int] | tuple[str, int, int, int]) -> "Endpoint":
        """What a socket call returned, in our spelling. Never raises on an address of the kernel's."""
        host, port = address[0], address[1]
        host = host.partition("%")[0]
        if host.startswith("::ffff:") and "." in host:
            host = host[7:]
        return cls(host, port)

    def pack(self) -> bytes:
        """4 or 16 bytes of address, then the port, big-endian: 6 or 18 bytes."""
        return ipaddress.ip_address(self.host).packed + self.port.to_bytes(2, "big")

    @classmethod
    def unpack(cls, data: bytes) -> "Endpoint":
        """The reverse of :meth:`pack`. Raises DecodeError("endpoint")."""
        if len(data) not in (6, 18):
            raise DecodeError("endpoint", f"{len(data)} bytes")
        address = ipaddress.ip_address(data[:-2])
        port = int.from_bytes(data[-2:], "big")
        if port == 0:
            raise DecodeError("endpoint", "port 0")
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return cls(str(address), port)


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
