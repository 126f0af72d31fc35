"""MessagePack with limits: the structure is walked without recursion before umsgpack may build it.

umsgpack 2.8 recurses per nesting level and accepts every extension type. What we send needs small
arrays of integers, strings and byte strings, so everything else is refused here.
"""

from typing import Any

import umsgpack

from dhtvpn.errors import DecodeError

MAX_DEPTH = 4
"""Arrays inside arrays; our deepest message has two."""

MAX_ITEMS = 32
"""Values in one message, arrays included; our largest has nine."""

_SIZED: dict[int, int] = {0xC4: 1, 0xC5: 2, 0xD9: 1, 0xDA: 2}
"""bin 8, bin 16, str 8, str 16: octets of the length field. The 32-bit forms cannot fit a datagram."""

_FIXED: dict[int, int] = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    **dict(zip(range(0xCC, 0xD4), (1, 2, 4, 8, 1, 2, 4, 8), strict=True)),
}
"""nil, false, true and the integers: octets after the code."""


def pack(value: Any) -> bytes:
    """``value`` (ints, str, bytes, lists of these) as MessagePack, shortest forms."""
    packed: bytes = umsgpack.packb(value)
    return packed


def unpack(data: bytes) -> Any:
    """One value that fills ``data`` exactly. Raises DecodeError("msgpack")."""
    _check_structure(data)
    try:
        return umsgpack.unpackb(data)
    except (umsgpack.UnpackException, ValueError) as error:
        raise DecodeError("msgpack", str(error)) from error


def _check_structure(data: bytes) -> None:
    """Walk ``data`` with a stack of "values still to come", one number per open array."""
    open_arrays = [1]
    offset = items = 0
    while open_arrays:
        if open_arrays[-1] == 0:
            open_arrays.pop()
            continue
        if offset >= len(data):
            raise DecodeError("msgpack", "truncated")
        open_arrays[-1] -= 1
        items += 1
        size, children = _item(data, offset)
        offset += size
        if children:
            open_arrays.append(children)
        if items > MAX_ITEMS or len(open_arrays) > MAX_DEPTH + 1:
            raise DecodeError("msgpack", "too deep or too many values")
    if offset != len(data):
        raise DecodeError("msgpack", "length")


def _item(data: bytes, offset: int) -> tuple[int, int]:
    """Octets that the value at ``offset`` takes itself, and how many values it holds."""
    code = data[offset]
    if code <= 0x7F or code >= 0xE0:  # positive and negative fixint
        return 1, 0
    if 0x90 <= code <= 0x9F:  # fixarray
        return 1, code & 0x0F
    if 0xA0 <= code <= 0xBF:  # fixstr
        return 1 + (code & 0x1F), 0
    if code in _FIXED:
        return 1 + _FIXED[code], 0
    if code in _SIZED:
        width = _SIZED[code]
        return 1 + width + int.from_bytes(data[offset + 1 : offset + 1 + width], "big"), 0
    raise DecodeError("msgpack", f"type 0x{code:02x}")
