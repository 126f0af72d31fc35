"""ICMP answers to a local sender: "unreachable" and "too big" (RFC 792, 1122, 1191, 4443).

The answer carries the address that the packet was sent to as its source: the kernel discards a packet from
outside that claims one of its own addresses.

No answer is given (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)) to an ICMP error, to a packet that went
to or came from anything but one host, to a fragment other than the first, or to bytes that are no packet.
:class:`AnswerLimit` caps the rate.
"""

import struct
from typing import Final

from dhtvpn.errors import DecodeError
from dhtvpn.packet.checksum import internet_checksum, ipv6_pseudo_header_sum
from dhtvpn.packet.ip import ICMP, ICMPV6, IPV4_HEADER, IPV6_HEADER, IPV6_MIN_MTU, IpHeader, parse

IPV4_ANSWER_MAX: Final = 576  # bytes: RFC 1812 section 4.3.2.3
ANSWERS_PER_S: Final = 100.0  # ours: enough for every program of a host to learn of it
ANSWER_BURST: Final = 50  # ours, answers

_TTL = 64
_V4_UNREACHABLE, _V4_HOST_UNREACHABLE, _V4_FRAGMENTATION_NEEDED = 3, 1, 4  # RFC 792
_V4_ERRORS = frozenset((3, 4, 5, 11, 12))  # RFC 1122 section 3.2.2
_V6_UNREACHABLE, _V6_ADDRESS_UNREACHABLE = 1, 3  # RFC 4443 section 3.1
_V6_PACKET_TOO_BIG = 2  # RFC 4443 section 3.2
_V6_REDIRECT = 137  # RFC 4861 section 4.5: RFC 4443 section 2.4 (e.2) names it beside the errors


def unreachable(packet: bytes | bytearray | memoryview) -> bytes | None:
    """The answer "host unreachable" (IPv4) or "address unreachable" (IPv6), or None."""
    header = _answerable(packet)
    if header is None:
        return None
    if header.version == 4:
        return _answer_v4(packet, header, _V4_HOST_UNREACHABLE, 0)
    return _answer_v6(packet, header, _V6_UNREACHABLE, _V6_ADDRESS_UNREACHABLE, 0)


def too_big(packet: bytes | bytearray | memoryview, mtu: int) -> bytes | None:
    """The answer "fragmentation needed" (IPv4, RFC 1191 section 4) or "packet too big" (IPv6) that names
    ``mtu``, at most 65535 bytes; or None."""
    header = _answerable(packet)
    if header is None:
        return None
    if header.version == 4:
        return _answer_v4(packet, header, _V4_FRAGMENTATION_NEEDED, mtu)
    return _answer_v6(packet, header, _V6_PACKET_TOO_BIG, 0, mtu)


class AnswerLimit:
    """A token bucket over all answers (RFC 4443 section 2.4 (f)). Time comes in as ``now``, seconds."""

    def __init__(self, per_s: float = ANSWERS_PER_S, burst: int = ANSWER_BURST) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_at: float | None = None

    def allow(self, now: float) -> bool:
        """Whether an answer may be sent at ``now``; counts it."""
        if self._filled_at is not None:
            elapsed = max(0.0, now - self._filled_at)
            self._tokens = min(self._burst, self._tokens + elapsed * self._per_s)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def is_one_host(address: bytes) -> bool:
    """Whether ``address`` (4 or 16 bytes) can be one host: not zero, loopback, multicast or reserved."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[0] != 0xFF and any(address[:15]) | (address[15] > 1)


def _answerable(packet: bytes | bytearray | memoryview) -> IpHeader | None:
    try:
        header = parse(packet)
    except DecodeError:
        return None
    if header.fragment_offset or not is_one_host(header.source) or not is_one_host(header.destination):
        return None
    if header.protocol in (ICMP, ICMPV6) and _is_error(packet, header):
        return None
    return header


def _is_error(packet: bytes | bytearray | memoryview, header: IpHeader) -> bool:
    """Whether the packet is an ICMP error, or may be one because its type is cut off."""
    if header.payload_offset >= header.total_length:
        return True
    kind = packet[header.payload_offset]
    if header.version == 4:
        return header.protocol == ICMP and kind in _V4_ERRORS
    return header.protocol == ICMPV6 and (kind < 128 or kind == _V6_REDIRECT)


def _answer_v4(packet: bytes | bytearray | memoryview, header: IpHeader, code: int, mtu: int) -> bytes:
    quoted = bytes(packet[: min(header.total_length, IPV4_ANSWER_MAX - IPV4_HEADER - 8)])
    body = struct.pack("!BBHI", _V4_UNREACHABLE, code, 0, mtu) + quoted
    body = body[:2] + struct.pack("!H", internet_checksum(body)) + body[4:]
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0xC0,  # internetwork control precedence: RFC 1812 section 4.3.2.5
        IPV4_HEADER + len(body),
        0,
        0x4000,
        _TTL,
        ICMP,
        0,
        header.destination,
        header.source,
    )
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + body


def _answer_v6(
    packet: bytes | bytearray | memoryview, header: IpHeader, kind: int, code: int, mtu: int
) -> bytes:
    quoted = bytes(packet[: min(header.total_length, IPV6_MIN_MTU - IPV6_HEADER - 8)])
    body = struct.pack("!BBHI", kind, code, 0, mtu) + quoted
    pseudo = ipv6_pseudo_header_sum(header.destination, header.source, len(body), ICMPV6)
    body = body[:2] + struct.pack("!H", internet_checksum(body, pseudo)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, _TTL) + header.destination + header.source
    return head + body
