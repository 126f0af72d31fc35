"""One message of the BitTorrent DHT (KRPC, BEP 5): a ping, and the endpoint that its answer names (BEP 42).

Pure. A node of that DHT answers a ping with the address and port that it came from, which makes every one of
them what a STUN server is. Nothing else of that protocol is spoken on our port.
"""

from typing import Any, Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

FIRST_BYTE: Final = 0x64
"""``d``: every message is a bencoded dictionary."""

LEAST: Final = 40
MOST: Final = 512
"""Octets of an answer that is read, at least and at most."""

ID_SIZE: Final = 20
TRANSACTION_SIZE: Final = 8
"""Octets, all random: an answer cannot be made up by who has not seen the ping."""

MAX_DEPTH: Final = 3
MAX_ITEMS: Final = 32
_MAX_DIGITS: Final = 18


def ping(node_id: bytes, transaction: bytes) -> bytes:
    """A ping that asks not to be put into routing tables (BEP 43): this port answers no queries."""
    return b"d1:ad2:id20:%be1:q4:ping2:roi1e1:t%d:%b1:y1:qe" % (node_id, len(transaction), transaction)


def transaction_and_endpoint(datagram: bytes) -> tuple[bytes, Endpoint]:
    """Of an answer: its transaction id, and the endpoint at which the answering node sees us.

    Raises DecodeError with reason "size", "format", "kind" (no answer) or "endpoint" (none in it).
    """
    if not LEAST <= len(datagram) <= MOST:
        raise DecodeError("size", f"{len(datagram)} bytes")
    message, end = _Reader(datagram).value(0, 0)
    if not isinstance(message, dict) or end != len(datagram):
        raise DecodeError("format")
    transaction, seen = message.get(b"t"), message.get(b"ip")
    if message.get(b"y") != b"r" or not isinstance(transaction, bytes):
        raise DecodeError("kind")
    if not isinstance(seen, bytes):
        raise DecodeError("endpoint")
    return transaction, Endpoint.unpack(seen)


class _Reader:
    """Bencoding (BEP 3), bounded in depth and in number of items."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_ITEMS

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """The value that begins at offset ``at``, and the offset behind it. Raises DecodeError."""
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise DecodeError("format", "too much in it")
        first = self._data[at : at + 1]
        if first == b"i":
            return self._number(at + 1, b"e")
        if first in {b"l", b"d"}:
            return self._many(at + 1, depth, dictionary=first == b"d")
        length, start = self._number(at, b":")
        if length < 0 or start + length > len(self._data):
            raise DecodeError("format", "length")
        return self._data[start : start + length], start + length

    def _number(self, at: int, end_mark: bytes) -> tuple[int, int]:
        end = self._data.find(end_mark, at, at + _MAX_DIGITS + 1)
        digits = self._data[at:end] if end >= 0 else b""
        if not digits.removeprefix(b"-").isdigit():
            raise DecodeError("format", "number")
        return int(digits), end + 1

    def _many(self, at: int, depth: int, *, dictionary: bool) -> tuple[Any, int]:
        found: list[Any] = []
        while self._data[at : at + 1] != b"e":
            item, at = self.value(at, depth + 1)
            found.append(item)
        if not dictionary:
            return found, at + 1
        keys = found[::2]
        if len(found) % 2 or not all(isinstance(key, bytes) for key in keys):
            raise DecodeError("format", "dictionary")
        return dict(zip(keys, found[1::2], strict=True)), at + 1
