import pytest

from dhtvpn.errors import DecodeError
from dhtvpn.records import strict_cbor


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ([], "80"),
        ([0, 23, 24, 255, 256, 65536, 2**32, 2**64 - 1], None),
        ([b"", b"\0" * 24, "", "ü", True, False], None),
        ([[1, b"x"], [[]]], "828201417881" + "80"),
        ([0] * 127, None),
    ],
)
def test_what_is_encoded_is_read_back(value: list[object], encoded: str | None) -> None:
    data = strict_cbor.encode(value)
    assert encoded is None or data.hex() == encoded
    assert strict_cbor.decode(data) == value


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("nothing", ""),
        ("no array", "00"),
        ("cut short", "8201"),
        ("bytes cut short", "814401"),
        ("head cut short", "8119"),
        ("bytes after the end", "810000"),
        ("another item after the end", "8000"),
        ("number not in shortest form", "811800"),
        ("length not in shortest form", "81580100"),
        ("array head not in shortest form", "980100"),
        ("negative number", "8120"),
        ("null", "81f6"),
        ("undefined", "81f7"),
        ("simple value", "81e0"),
        ("long simple value", "81f820"),
        ("float", "81fb7ff8000000000000"),
        ("half float", "81f97e00"),
        ("half float with the bits of true", "81f90015"),
        ("true in two bytes", "81f815"),
        ("map", "81a0"),
        ("tag of a date", "81c101"),
        ("tag of a big number", "81c2420100"),
        ("tag of a decimal fraction", "81c48220" + "01"),
        ("tag of a regular expression", "81d823622829"),
        ("tag of a shared value", "81d81c81d81d00"),
        ("indefinite array", "9f01ff"),
        ("indefinite bytes", "815f4100ff"),
        ("break", "81ff"),
        ("reserved head", "811c"),
        ("text that is not UTF-8", "816180"),
        ("surrogate in text", "8163eda080"),
        ("array of 2^64 - 1", "9bffffffffffffffff"),
        ("bytes of 2^64 - 1", "815bffffffffffffffff"),
        ("bytes of 2^63", "815b8000000000000000"),
        ("too deep", "8181818100"),
        ("far too deep", "81" * 1000),
        ("too many items", "9880" + "00" * 128),
        ("too long", "815903fe" + "00" * 1022),
    ],
)
def test_everything_else_is_refused(what: str, data: str) -> None:
    with pytest.raises(DecodeError) as caught:
        strict_cbor.decode(bytes.fromhex(data))
    assert caught.value.reason == "format", what
