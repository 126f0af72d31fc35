"""The small part of CBOR (RFC 8949) that records are written in, read without trust.

Allowed are unsigned integers, byte strings, text, arrays and the two booleans, each in its shortest
form (RFC 8949 section 4.2.1), with definite lengths. So every value has one spelling, and a tag cannot
make the parser build a regular expression, a huge number or a loop: the heads are walked before any
of it reaches cbor2.
"""

from typing import Any

import cbor2

from dhtvpn.errors import DecodeError

MAX_BYTES = 1024
MAX_ITEMS = 128
"""Data items in one message, arrays included: 16 candidates need 48."""
MAX_DEPTH = 3

_UNSIGNED, _BYTES, _TEXT, _ARRAY, _SIMPLE = 0, 2, 3, 4, 7
_FALSE, _TRUE = 20, 21


def encode(value: list[Any]) -> bytes:
    """The one spelling of ``value``: lists of int >= 0, bytes, str, bool and lists of these."""
    return cbor2.dumps(value)


def decode(data: bytes) -> list[Any]:
    """The array that ``data`` holds, all of it. Raises DecodeError("format") for everything else."""
    if len(data) > MAX_BYTES:
        raise DecodeError("format", "too long")
    _check_heads(data)
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH, allow_indefinite=False)
    except (cbor2.CBORError, ValueError) as error:
        raise DecodeError("format", "not CBOR") from error
    if not isinstance(value, list) or cbor2.dumps(value) != data:
        raise DecodeError("format", "not an array in its shortest form")
    return value


def _check_heads(data: bytes) -> None:
    """Walk the heads and refuse what is not allowed. One pass, no recursion, at most MAX_ITEMS steps."""
    offset, open_arrays = 0, [1]
    for _ in range(MAX_ITEMS):
        while open_arrays and open_arrays[-1] == 0:
            open_arrays.pop()
        if not open_arrays:
            break
        open_arrays[-1] -= 1
        major, argument, offset = _head(data, offset)
        if major in (_BYTES, _TEXT):
            offset += argument
        elif major == _ARRAY:
            open_arrays.append(argument)
        elif major != _UNSIGNED and (major, argument) not in ((_SIMPLE, _FALSE), (_SIMPLE, _TRUE)):
            raise DecodeError("format", f"major type {major}")
        if len(open_arrays) > MAX_DEPTH + 1 or offset > len(data):
            raise DecodeError("format", "too deep or cut short")
    if any(open_arrays) or offset != len(data):
        raise DecodeError("format", "too many items or bytes after the end")


def _head(data: bytes, offset: int) -> tuple[int, int, int]:
    """Major type, argument and the offset behind one head (RFC 8949 section 3)."""
    if offset >= len(data):
        raise DecodeError("format", "cut short")
    major, information = data[offset] >> 5, data[offset] & 31
    offset += 1
    if information < 24:
        return major, information, offset
    if information > 27 or major == _SIMPLE:
        raise DecodeError("format", "indefinite length, float or reserved head")
    size = 1 << (information - 24)
    if offset + size > len(data):
        raise DecodeError("format", "cut short")
    return major, int.from_bytes(data[offset : offset + size]), offset + size
