"""Node ids that are bound to an address (BEP 42), so that nobody chooses where in the network he stands.

The first 21 bits of an id are a checksum (CRC32-C) of the address, cut to its upper part, and of three random
bits that are also the last three of the id. So one IPv4 address has 8 places, and an IPv4 /24 at most as many
as the mask leaves. Addresses that are not on the internet are exempt, as in BEP 42. Pure.
"""

import ipaddress
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from dhtvpn.discovery.directory import KEY_LENGTH

MASK_IPV4: Final = bytes.fromhex("030f3fff")
MASK_IPV6: Final = bytes.fromhex("0103070f1f3f7fff")
"""Which bits of an address count, from BEP 42: the farther up, the fewer. Of IPv6 the upper 64 bits."""

BOUND_BITS: Final = 21

EXEMPT: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "100.64.0.0/10",
        "::1/128",
        "fe80::/10",
        "fc00::/7",
    )
)
"""The networks that BEP 42 lists for IPv4, and 100.64.0.0/10 (RFC 6598), which is private to a provider as
those are to a site; for IPv6, where BEP 42 lists none, their counterparts. Not the ranges for laboratories
and documentation (198.18.0.0/15, 2001:db8::/32): nobody on the internet has them, and in a laboratory the
rule shall be in force."""

CACHED: Final = 1 << 12
"""Results remembered of each question below, some 300 octets each: enough for those who ask and are told of
again and again, and soon full where a flood brings ever new ones."""

_EXEMPT_BY_LENGTH: Final = {
    length: tuple(
        (int(network.network_address), int(network.netmask))
        for network in EXEMPT
        if network.max_prefixlen == 8 * length
    )
    for length in (4, 16)
}
"""The same as integers, address and mask, by the octets that an address has."""

_POLYNOMIAL: Final = 0x82F63B78
"""CRC32-C (Castagnoli), its bits reversed (RFC 3720 appendix B.4)."""


def bound_id(host: str, random_bytes: Callable[[int], bytes]) -> bytes:
    """A node id for ``host``: 21 bits from the address, the rest random."""
    random_part = random_bytes(KEY_LENGTH)
    prefix = _prefix(host, random_part[-1])
    middle = prefix[2] & 0xF8 | random_part[2] & 0x07
    return prefix[:2] + bytes([middle]) + random_part[3:]


@lru_cache(maxsize=CACHED)
def fits(node_id: bytes, host: str) -> bool:
    """Whether a node at ``host`` may have this id."""
    if is_exempt(host):
        return True
    prefix = _prefix(host, node_id[-1])
    return node_id[:2] == prefix[:2] and node_id[2] & 0xF8 == prefix[2] & 0xF8


@lru_cache(maxsize=CACHED)
def is_exempt(host: str) -> bool:
    """Whether ids at this address are not bound to it: it is not an address on the internet. Raises
    ValueError where it is no address at all."""
    packed = _packed(host)
    address = int.from_bytes(packed, "big")
    return any(address & mask == network for network, mask in _EXEMPT_BY_LENGTH[len(packed)])


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720 (iSCSI), 32 bits."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _prefix(host: str, last_octet: int) -> bytes:
    """Four octets, of which an id that fits has the first BOUND_BITS."""
    packed = _packed(host)
    mask = MASK_IPV4 if len(packed) == 4 else MASK_IPV6
    masked = bytearray(octet & bits for octet, bits in zip(packed, mask, strict=False))
    masked[0] |= (last_octet & 0x07) << 5
    return crc32c(bytes(masked)).to_bytes(4, "big")


def _packed(host: str) -> bytes:
    """The 4 or 16 octets of a numeric address. Raises ValueError for anything else."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except OSError as error:
        raise ValueError(f"{host!r} is not an address") from error


def _table_entry(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ _POLYNOMIAL * (octet & 1)
    return octet


_TABLE: Final = tuple(_table_entry(octet) for octet in range(256))
