"""Thins out TCP acknowledgements: of those that one batch holds for a connection, the newest leaves.

TCP answers every super-packet that is delivered to this machine with an acknowledgement, and one that has
not left yet says nothing that its successor does not say (RFC 3449 section 5.2.1, "ACK filtering"). Only pure
acknowledgements are left out, and only for one that acknowledges more: duplicates, window updates, anything
with a selective acknowledgement or a congestion mark are signals of their own and all leave.
"""

from struct import Struct
from typing import Final

from dhtvpn.packet import virtio
from dhtvpn.packet.ip import IPV4_HEADER, IPV6_HEADER
from dhtvpn.packet.transport import TCP, TCP_HEADER

MAX_FLOWS: Final = 64  # ours: connections of one batch; a batch has no more packets

_AT: Final = virtio.SIZE
_ACK: Final = 0x10
_NUMBER: Final = Struct("!I")
_PLAIN: Final = 0x50  # data offset of a TCP header without options
_WITH_TIMESTAMP: Final = 0x80  # of one with 12 bytes of them
_TIMESTAMP: Final = b"\x01\x01\x08\x0a"  # RFC 7323 appendix A


class AckThinning:
    """Pure acknowledgements of one batch, as read from the device, by connection."""

    def __init__(self) -> None:
        self._held: dict[bytes, tuple[int, bytes]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, buffer: bytearray, end: int) -> bytes | None:
        """Keep the packet in ``buffer`` (behind its virtio header) back if it is a pure acknowledgement.

        Returns None where it is not, and otherwise what is to leave for it: the one held before it, or b""
        where that says nothing more.
        """
        tcp = _pure_acknowledgement(buffer, end)
        if not tcp:
            return None
        key = _connection(buffer, tcp)
        number: int = _NUMBER.unpack_from(buffer, tcp + 8)[0]
        before = self._held.get(key)
        if before is None and len(self._held) >= MAX_FLOWS:
            return None
        self._held[key] = number, bytes(buffer[:end])
        if before is None or 0 < (number - before[0]) & 0xFFFFFFFF < 1 << 31:
            return b""
        return before[1]

    def release(self, buffer: bytearray, end: int) -> bytes:
        """The acknowledgement held back that is to leave before the packet in ``buffer``, which is none
        itself: that of its connection, unless the packet acknowledges more; b"" where there is none."""
        tcp = _tcp_header(buffer)
        if not tcp or end < tcp + TCP_HEADER:
            return b""
        held = self._held.pop(_connection(buffer, tcp), None)
        if held is None:
            return b""
        number: int = _NUMBER.unpack_from(buffer, tcp + 8)[0]
        newer = buffer[tcp + 13] & _ACK and 0 < (number - held[0]) & 0xFFFFFFFF < 1 << 31
        return b"" if newer else held[1]

    def take(self) -> list[bytes]:
        """What was held back, oldest connection first."""
        held = [packet for _, packet in self._held.values()]
        self._held.clear()
        return held


def _pure_acknowledgement(buffer: bytearray, end: int) -> int:
    """Where the TCP header of a packet is that does nothing but acknowledge; 0 for any other."""
    tcp = _tcp_header(buffer)
    if not tcp:
        return 0
    options = end - tcp - TCP_HEADER
    if options == len(_TIMESTAMP) + 8:
        shape = _WITH_TIMESTAMP if buffer.startswith(_TIMESTAMP, tcp + TCP_HEADER) else None
    else:
        shape = _PLAIN if options == 0 else None
    return tcp if buffer[tcp + 12] == shape and buffer[tcp + 13] == _ACK else 0


def _tcp_header(buffer: bytearray) -> int:
    """Where the TCP header of a packet without IP options is; 0 for any other."""
    if buffer[_AT] == 0x45 and buffer[_AT + 9] == TCP:
        return _AT + IPV4_HEADER
    if buffer[_AT] >> 4 == 6 and buffer[_AT + 6] == TCP:
        return _AT + IPV6_HEADER
    return 0


def _connection(buffer: bytearray, tcp: int) -> bytes:
    """Addresses and ports."""
    addresses = 8 if buffer[_AT] == 0x45 else 32  # bytes of both, right before the TCP header
    return bytes(buffer[tcp - addresses : tcp + 4])
