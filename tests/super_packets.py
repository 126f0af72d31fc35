"""TCP and UDP packets with right checksums, super-packets as a device hands them over, and what they mean.

:func:`packets_of` is a segmentation of its own: it works on bytes from the RFCs and shares no code with
``packet.segment`` and ``packet.train``.
"""

import struct
from ipaddress import ip_address
from typing import Any, NamedTuple

from dhtvpn.packet.checksum import internet_checksum

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
TCP_V4, TCP_V6, UDP_L4, GSO_ECN = 1, 4, 5, 0x80
_VNET = struct.Struct("=BBHHHH")


def tcp(
    source: Any,
    destination: Any,
    payload: bytes = b"",
    *,
    sequence: int = 1000,
    acknowledgement: int = 7,
    flags: int = ACK,
    window: int = 500,
    urgent: int = 0,
    options: bytes = b"",
    ports: tuple[int, int] = (1234, 80),
    **ip: Any,
) -> bytes:
    """A TCP packet. ``options``: a multiple of 4 bytes."""
    offset = (20 + len(options)) << 2
    head = struct.pack("!HHIIBBHHH", *ports, sequence, acknowledgement, offset, flags, window, 0, urgent)
    return _with_checksum(source, destination, 6, head + options + payload, 16, **ip)


def udp(
    source: Any, destination: Any, payload: bytes = b"", *, ports: tuple[int, int] = (1234, 53), **ip: Any
) -> bytes:
    """A UDP packet."""
    head = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    return _with_checksum(source, destination, 17, head + payload, 6, **ip)


def _with_checksum(
    source: Any, destination: Any, protocol: int, body: bytes, checksum_at: int, **ip: Any
) -> bytes:
    checksum = internet_checksum(_pseudo(source, destination, protocol, len(body)) + body) or 0xFFFF
    body = body[:checksum_at] + checksum.to_bytes(2, "big") + body[checksum_at + 2 :]
    return _ip_header(source, destination, protocol, len(body), **ip) + body


def _pseudo(source: Any, destination: Any, protocol: int, length: int) -> bytes:
    return ip_address(source).packed + ip_address(destination).packed + struct.pack("!II", length, protocol)


def _ip_header(
    source: Any,
    destination: Any,
    protocol: int,
    size: int,
    *,
    tos: int = 0,
    ttl: int = 64,
    identification: int = 1,
    fragment: int = 0x4000,
    ip_options: bytes = b"",
    flow: int = 0,
) -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    if len(addresses) == 32:
        return struct.pack("!IHBB", 6 << 28 | tos << 20 | flow, size, protocol, ttl) + addresses
    first, total = 0x45 + len(ip_options) // 4, 20 + len(ip_options) + size
    head = struct.pack("!BBHHHBBH", first, tos, total, identification, fragment, ttl, protocol, 0)
    checksum = internet_checksum(head + addresses + ip_options)
    return head[:10] + checksum.to_bytes(2, "big") + addresses + ip_options


class Parts(NamedTuple):
    """Where things are in a packet."""

    version: int
    protocol: int
    ip_length: int
    length: int
    checksum_at: int


def parts(packet: bytes) -> Parts:
    """Of a plain TCP or UDP packet."""
    version = packet[0] >> 4
    ip_length, protocol = ((packet[0] & 15) * 4, packet[9]) if version == 4 else (40, packet[6])
    if protocol == 6:
        return Parts(
            4 if version == 4 else 6, 6, ip_length, ip_length + (packet[ip_length + 12] >> 4) * 4, 16
        )
    assert protocol == 17
    return Parts(version, 17, ip_length, ip_length + 8, 6)


def pseudo_of(packet: bytes) -> bytes:
    """The pseudo-header of a packet."""
    at = parts(packet)
    source, destination = (packet[12:16], packet[16:20]) if at.version == 4 else (packet[8:24], packet[24:40])
    return _pseudo(ip_address(source), ip_address(destination), at.protocol, len(packet) - at.ip_length)


def begun(packet: bytes) -> bytes:
    """``packet`` with its transport checksum only begun."""
    at = parts(packet)
    field = at.ip_length + at.checksum_at
    value = internet_checksum(pseudo_of(packet)) ^ 0xFFFF
    return packet[:field] + value.to_bytes(2, "big") + packet[field + 2 :]


def completed(packet: bytes) -> bytes:
    """The reverse of :func:`begun`."""
    at = parts(packet)
    field = at.ip_length + at.checksum_at
    value = internet_checksum(packet[at.ip_length :]) or 0xFFFF
    return packet[:field] + value.to_bytes(2, "big") + packet[field + 2 :]


def from_device(packet: bytes, segment: int = 0) -> bytes:
    """``packet`` as a device with a virtio header hands it over: a super-packet where ``segment`` is less
    than its payload."""
    at = parts(packet)
    kind, gso = 0, 0
    if 0 < segment < len(packet) - at.length:
        kind, gso = {6: TCP_V4 if at.version == 4 else TCP_V6, 17: UDP_L4}[at.protocol], segment
        if at.protocol == 6 and packet[at.ip_length + 13] & CWR:
            kind |= GSO_ECN
    return _VNET.pack(1, kind, at.length, gso, at.ip_length, at.checksum_at) + begun(packet)


def packets_of(written: bytes) -> list[bytes]:
    """What a super-packet behind a virtio header stands for: complete packets, as on a wire, but for IPv4
    identifications, which are those of the first one."""
    flags, kind, head_length, segment, start, offset = _VNET.unpack_from(written)
    packet = written[10:]
    check(written)
    if not flags:
        assert kind == segment == 0
        return [packet]
    if not kind:
        return [completed(packet)]
    at, found = parts(packet), []
    assert (head_length, start, offset) == (at.length, at.ip_length, at.checksum_at)
    payload = packet[at.length :]
    for number, done in enumerate(range(0, len(payload), segment)):
        body = payload[done : done + segment]
        head = bytearray(packet[: at.length])
        transport = at.ip_length
        if at.protocol == 6:
            sequence = int.from_bytes(head[transport + 4 : transport + 8], "big") + done
            head[transport + 4 : transport + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            if done + segment < len(payload):
                head[transport + 13] &= ~(FIN | PSH) & 0xFF
            if number:
                head[transport + 13] &= ~CWR & 0xFF
        else:
            head[transport + 4 : transport + 6] = (8 + len(body)).to_bytes(2, "big")
        if at.version == 4:
            head[2:4] = (len(head) + len(body)).to_bytes(2, "big")
            head[10:12] = bytes(2)
            head[10:12] = internet_checksum(bytes(head[: at.ip_length])).to_bytes(2, "big")
        else:
            head[4:6] = (len(head) - 40 + len(body)).to_bytes(2, "big")
        found.append(completed(begun(bytes(head) + body)))
    return found


def check(written: bytes) -> None:
    """A virtio header that a kernel would take, and that fits the packet behind it."""
    flags, kind, head_length, segment, start, offset = _VNET.unpack_from(written)
    packet = written[10:]
    version = packet[0] >> 4
    stated = int.from_bytes(packet[2:4], "big") if version == 4 else 40 + int.from_bytes(packet[4:6], "big")
    assert version in (4, 6)
    assert stated == len(packet)
    assert flags in (0, 1)
    if version == 4 and kind:
        assert internet_checksum(packet[: (packet[0] & 15) * 4]) == 0
    if not flags:
        assert (kind, head_length, segment, start, offset) == (0, 0, 0, 0, 0)
        return
    assert start + offset + 2 <= len(packet)
    assert head_length <= len(packet)
    protocol = packet[9] if version == 4 else packet[6]
    assert (protocol, offset) in ((6, 16), (17, 6))
    assert start == ((packet[0] & 15) * 4 if version == 4 else 40)
    assert bool(kind) == bool(segment)
    if kind:
        at = parts(packet)
        assert kind & ~GSO_ECN == (UDP_L4 if protocol == 17 else TCP_V4 if version == 4 else TCP_V6)
        assert bool(kind & GSO_ECN) == (protocol == 6 and bool(packet[start + 13] & CWR))
        assert head_length == at.length
        assert segment < len(packet) - head_length
        value = int.from_bytes(packet[start + offset : start + offset + 2], "big")
        assert value in (internet_checksum(pseudo_of(packet)) ^ 0xFFFF, 0)
    else:
        assert start + (20 if protocol == 6 else 8) <= len(packet)


def without_identification(packet: bytes) -> bytes:
    """``packet`` with IPv4 identification and header checksum zero."""
    return packet if packet[0] >> 4 == 6 else packet[:4] + bytes(2) + packet[6:10] + bytes(2) + packet[12:]
