"""PCP, version 2 (RFC 6887): requests and responses of ANNOUNCE and MAP. Pure.

Every address is 16 octets, IPv4 as ``::ffff:a.b.c.d`` (section 5). Of the options in a response none matters
to us: we send none.
"""

import hmac
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from dhtvpn.errors import DecodeError

Address = IPv4Address | IPv6Address

PORT: Final = 5351
"""Of the server (section 19.1)."""
CLIENT_PORT: Final = 5350
"""Where everybody listens for announcements to 224.0.0.1 and ff02::1 (section 14.1)."""
VERSION: Final = 2
ANNOUNCE, MAP = 0, 1
NONCE_SIZE: Final = 12
MAX_MESSAGE: Final = 1100  # octets (section 7)

_RESPONSE: Final = 0x80
_UDP: Final = 17
_HEADER: Final = struct.Struct("!BBHI16s")
_RESPONSE_HEADER: Final = struct.Struct("!BBBBII12x")
_MAP: Final = struct.Struct("!12sB3xHH16s")

SUCCESS: Final = 0
RESULTS: Final = {
    1: "UNSUPP_VERSION",
    2: "NOT_AUTHORIZED",
    3: "MALFORMED_REQUEST",
    4: "UNSUPP_OPCODE",
    5: "UNSUPP_OPTION",
    6: "MALFORMED_OPTION",
    7: "NETWORK_FAILURE",
    8: "NO_RESOURCES",
    9: "UNSUPP_PROTOCOL",
    10: "USER_EX_QUOTA",
    11: "CANNOT_PROVIDE_EXTERNAL",
    12: "ADDRESS_MISMATCH",
    13: "EXCESSIVE_REMOTE_PEERS",
}
"""Section 7.4."""


@dataclass(frozen=True)
class Response:
    """The header of a response. ``lifetime_s``: of the mapping or, after an error, of the error."""

    opcode: int
    result: int
    lifetime_s: int
    epoch_s: int

    @property
    def result_name(self) -> str:
        return RESULTS.get(self.result, f"result {self.result}")


@dataclass(frozen=True)
class MapResponse(Response):
    """A response to MAP. After an error the external address and port are those that were suggested."""

    internal_port: int
    external_port: int
    external_address: Address


def announce_request(client: Address) -> bytes:
    """Asks the server for its epoch, 24 octets (section 14.1)."""
    return _HEADER.pack(VERSION, ANNOUNCE, 0, 0, _packed(client))


def map_request(
    client: Address,
    nonce: bytes,
    internal_port: int,
    lifetime_s: int,
    suggested: tuple[Address, int] | None = None,
) -> bytes:
    """Asks for a mapping of a UDP port of ``client``, 60 octets (section 11.1). Lifetime 0 deletes it.

    ``suggested``: the external address and port that we would like, such as those that we had.
    """
    wildcard: Address = IPv4Address(0) if client.version == 4 else IPv6Address(0)
    address, port = suggested or (wildcard, 0)
    header = _HEADER.pack(VERSION, MAP, 0, lifetime_s, _packed(client))
    return header + _MAP.pack(nonce, _UDP, internal_port, port, _packed(address))


def decode(data: bytes) -> Response:
    """The header of a response. Raises DecodeError: pcp_size, pcp_version, pcp_format."""
    if not _RESPONSE_HEADER.size <= len(data) <= MAX_MESSAGE or len(data) % 4:
        raise DecodeError("pcp_size")
    version, code, _, result, lifetime_s, epoch_s = _RESPONSE_HEADER.unpack_from(data)
    if version != VERSION:
        raise DecodeError("pcp_version")
    if not code & _RESPONSE:
        raise DecodeError("pcp_format", "a request")
    return Response(code & ~_RESPONSE, result, lifetime_s, epoch_s)


def decode_map(data: bytes, nonce: bytes, internal_port: int) -> MapResponse:
    """The response to our MAP request. Raises DecodeError: those of :func:`decode`, and pcp_nonce."""
    header = decode(data)
    if header.opcode != MAP or len(data) < _RESPONSE_HEADER.size + _MAP.size:
        raise DecodeError("pcp_format", "not of MAP")
    echoed, protocol, internal, external, address = _MAP.unpack_from(data, _RESPONSE_HEADER.size)
    if not hmac.compare_digest(echoed, nonce):
        raise DecodeError("pcp_nonce")
    if protocol != _UDP or internal != internal_port:
        raise DecodeError("pcp_format", "of another mapping")
    return MapResponse(
        header.opcode,
        header.result,
        header.lifetime_s,
        header.epoch_s,
        internal,
        external,
        _unpacked(address),
    )


def _packed(address: Address) -> bytes:
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def _unpacked(data: bytes) -> Address:
    address = IPv6Address(data)
    return address if address.ipv4_mapped is None else address.ipv4_mapped
