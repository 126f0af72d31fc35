"""The STUN service of a node that does nothing else with STUN: no ICE, no codec of a library.

It answers what stun_service.py answers, byte for byte (RFC 8489): a Binding request without USERNAME gets a
success response with XOR-MAPPED-ADDRESS. Limits come first, so that a flood is dropped unread.
"""

import struct
import time
import zlib
from collections.abc import Callable
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.nat import filter_test, size_test
from dhtvpn.nat.demux import STUN_COOKIE, STUN_HEADER
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_limit import SourceLimit

MAX_REQUEST: Final = 1280
"""Octets of the longest request that is read; a plain one has 20."""

_HEADER: Final = struct.Struct("!HH4s12s")
_ATTRIBUTE: Final = struct.Struct("!HH")
_BINDING_REQUEST, _BINDING_SUCCESS = 0x0001, 0x0101  # RFC 8489 sections 5 and 18.2
_USERNAME, _XOR_MAPPED_ADDRESS, _FINGERPRINT = 0x0006, 0x0020, 0x8028  # RFC 8489 section 18.3
_OTHER_ADDRESS: Final = 0x802C  # RFC 5780 section 7.4
_COMPREHENSION_OPTIONAL: Final = 0x8000
_FINGERPRINT_XOR: Final = 0x5354554E  # RFC 8489 section 14.7
_FAMILY_IPV4, _FAMILY_IPV6 = 1, 2


def read_request(data: bytes) -> tuple[bytes, bool]:
    """The transaction id of a Binding request, and whether it has a FINGERPRINT.

    Raises DecodeError("length", "cookie", "attributes", "method", "ufrag" for an ICE check, "unsupported" for
    an attribute that we would have to understand).
    """
    if not STUN_HEADER <= len(data) <= MAX_REQUEST or len(data) % 4:
        raise DecodeError("length")
    kind, length, cookie, transaction_id = _HEADER.unpack_from(data)
    if length != len(data) - STUN_HEADER:
        raise DecodeError("length")
    if cookie != STUN_COOKIE:
        raise DecodeError("cookie")
    if kind != _BINDING_REQUEST:
        raise DecodeError("method")
    offset, fingerprint = STUN_HEADER, False
    while offset < len(data):
        attribute, size = _ATTRIBUTE.unpack_from(data, offset)
        if attribute == _USERNAME:
            raise DecodeError("ufrag")
        if attribute < _COMPREHENSION_OPTIONAL:
            raise DecodeError("unsupported")
        fingerprint = fingerprint or attribute == _FINGERPRINT
        offset += _ATTRIBUTE.size + (size + 3 & ~3)
    if offset != len(data):
        raise DecodeError("attributes")
    return transaction_id, fingerprint


def success(transaction_id: bytes, mapped: Endpoint, fingerprint: bool) -> bytes:
    """A Binding success response: 32 octets for IPv4, 44 for IPv6, 8 more with FINGERPRINT."""
    packed = mapped.pack()[:-2]
    mask = STUN_COOKIE + transaction_id
    address = bytes(octet ^ other for octet, other in zip(packed, mask, strict=False))
    port = mapped.port ^ int.from_bytes(STUN_COOKIE[:2], "big")
    value = struct.pack("!BBH", 0, _FAMILY_IPV6 if mapped.is_ipv6 else _FAMILY_IPV4, port) + address
    body = _ATTRIBUTE.pack(_XOR_MAPPED_ADDRESS, len(value)) + value
    length = len(body) + (8 if fingerprint else 0)
    message = _HEADER.pack(_BINDING_SUCCESS, length, STUN_COOKIE, transaction_id) + body
    if fingerprint:
        message += _ATTRIBUTE.pack(_FINGERPRINT, 4) + struct.pack(
            "!I", zlib.crc32(message) ^ _FINGERPRINT_XOR
        )
    return message


def answer_filter_test(port: UdpPort, transaction_id: bytes, asker: Endpoint) -> None:
    """Both answers to a filter test (filter_test.py). The caller has applied its limits."""
    message = success(transaction_id, asker, fingerprint=False)
    other = port.answer_from_other_port(message, asker)
    if other is None:
        return
    family, size = (_FAMILY_IPV6, 16) if asker.is_ipv6 else (_FAMILY_IPV4, 4)
    value = struct.pack("!BBH", 0, family, other) + bytes(size)
    body = message[STUN_HEADER:] + _ATTRIBUTE.pack(_OTHER_ADDRESS, len(value)) + value
    port.answer(_HEADER.pack(_BINDING_SUCCESS, len(body), STUN_COOKIE, transaction_id) + body, asker)


class PlainStunService:
    """Answers on ``port`` from when it is made."""

    def __init__(self, port: UdpPort, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = port
        self._clock = clock
        self._limit = SourceLimit(clock())
        self.answered = 0
        port.on_stun(self.handle_datagram)

    def handle_datagram(self, data_untrusted: bytes, source: Endpoint) -> None:
        """One datagram that looks like STUN. Never raises."""
        if not self._limit.allows(source.host, self._clock()):
            self._port.drops.count("stun", "rate")
            return
        if (asked := filter_test.transaction_of(data_untrusted)) is not None:
            self.answered += 1
            answer_filter_test(self._port, asked, source)
            return
        if (measured := size_test.transaction_of(data_untrusted)) is not None:
            self.answered += 1
            self._port.answer(success(measured, source, fingerprint=False), source)
            return
        try:
            transaction_id, fingerprint = read_request(data_untrusted)
        except DecodeError as error:
            self._port.drops.count("stun", error.reason)
            return
        self.answered += 1
        self._port.answer(success(transaction_id, source, fingerprint), source)
