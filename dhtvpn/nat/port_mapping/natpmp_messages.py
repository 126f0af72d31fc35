"""NAT-PMP (RFC 6886): requests and responses for the external address and for a UDP mapping. Pure."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from dhtvpn.errors import DecodeError

PORT: Final = 5351  # the same as PCP's, told apart by the version
VERSION: Final = 0
EXTERNAL_ADDRESS, MAP_UDP = 0, 1
SUCCESS: Final = 0
RESULTS: Final = {
    1: "unsupported version",
    2: "not authorized",
    3: "network failure",
    4: "out of resources",
    5: "unsupported opcode",
}
"""Section 3.5."""

_RESPONSE: Final = 0x80
_HEADER: Final = struct.Struct("!BBHI")
_MAP: Final = struct.Struct("!HHI")
_MAP_REQUEST: Final = struct.Struct("!BBHHHI")
_MAX_MESSAGE: Final = 64
"""Octets; ours. Responses have 12 and 16: a longer one is something else."""


@dataclass(frozen=True)
class Response:
    """What every response says: ``epoch_s``, seconds since the gateway began its table of mappings."""

    result: int
    epoch_s: int

    @property
    def result_name(self) -> str:
        return RESULTS.get(self.result, f"result {self.result}")


@dataclass(frozen=True)
class AddressResponse(Response):
    """The gateway's external address (section 3.2). Only where ``result`` is SUCCESS."""

    address: IPv4Address


@dataclass(frozen=True)
class MapResponse(Response):
    """A mapping (section 3.3). Only where ``result`` is SUCCESS."""

    external_port: int
    lifetime_s: int


def address_request() -> bytes:
    """Asks for the external address, 2 octets."""
    return bytes((VERSION, EXTERNAL_ADDRESS))


def map_request(internal_port: int, suggested_port: int, lifetime_s: int) -> bytes:
    """Asks for a mapping of a UDP port of the sender, 12 octets. Lifetime 0 with port 0 deletes it."""
    return _MAP_REQUEST.pack(VERSION, MAP_UDP, 0, internal_port, suggested_port, lifetime_s)


def decode_address(data: bytes) -> AddressResponse:
    """Also of an announcement. Raises DecodeError: natpmp_size, natpmp_version, natpmp_format."""
    result, epoch_s, body = _decode(data, EXTERNAL_ADDRESS, 4)
    return AddressResponse(result, epoch_s, IPv4Address(body))


def decode_map(data: bytes, internal_port: int) -> MapResponse:
    """Raises DecodeError: natpmp_size, natpmp_version, natpmp_format."""
    result, epoch_s, body = _decode(data, MAP_UDP, _MAP.size)
    internal, external, lifetime_s = _MAP.unpack(body)
    if result == SUCCESS and internal != internal_port:
        raise DecodeError("natpmp_format", "of another mapping")
    return MapResponse(result, epoch_s, external, lifetime_s)


def _decode(data: bytes, opcode: int, body_size: int) -> tuple[int, int, bytes]:
    """Result, epoch and body; after an error the body may be missing and is zeros then (section 3.5)."""
    if not _HEADER.size <= len(data) <= _MAX_MESSAGE:
        raise DecodeError("natpmp_size")
    version, code, result, epoch_s = _HEADER.unpack_from(data)
    if version != VERSION:
        raise DecodeError("natpmp_version")
    if code != _RESPONSE | opcode:
        raise DecodeError("natpmp_format", "of another request")
    body = data[_HEADER.size : _HEADER.size + body_size]
    if len(body) < body_size:
        if result == SUCCESS:
            raise DecodeError("natpmp_size")
        body = bytes(body_size)
    return result, epoch_s, body
