import pytest

from dhtvpn.endpoint import Endpoint, split_host_port
from dhtvpn.errors import DecodeError, UsageError


@pytest.mark.parametrize(
    ("endpoint", "packed", "text"),
    [
        (Endpoint("192.0.2.1", 4690), "c00002011252", "192.0.2.1:4690"),
        (Endpoint("2001:db8::1", 1), "20010db8000000000000000000000001" + "0001", "[2001:db8::1]:1"),
    ],
)
def test_pack_unpack_and_text(endpoint: Endpoint, packed: str, text: str) -> None:
    assert endpoint.pack().hex() == packed
    assert Endpoint.unpack(bytes.fromhex(packed)) == endpoint
    assert str(endpoint) == text


def test_unpack_turns_mapped_ipv6_into_ipv4() -> None:
    mapped = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]) + b"\x12\x52"
    assert Endpoint.unpack(mapped) == Endpoint("192.0.2.1", 4690)


@pytest.mark.parametrize("data", [b"", bytes(5), bytes(7), bytes(17), bytes(19), bytes(6), bytes(18)])
def test_unpack_refuses_other_lengths_and_port_zero(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        Endpoint.unpack(data)
    assert caught.value.reason == "endpoint"


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        (("192.0.2.1", 7), Endpoint("192.0.2.1", 7)),
        (("::ffff:192.0.2.1", 7, 0, 0), Endpoint("192.0.2.1", 7)),
        (("fe80::1%eth0", 7, 0, 3), Endpoint("fe80::1", 7)),
        (("2001:db8::1", 7, 0, 0), Endpoint("2001:db8::1", 7)),
    ],
)
def test_from_socket_has_one_spelling(address: tuple[str, int], endpoint: Endpoint) -> None:
    assert Endpoint.from_socket(address) == endpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("boot.example.org:4690", ("boot.example.org", 4690)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
        ("boot.example.org", ("boot.example.org", 4690)),
        ("[2001:db8::1]", ("2001:db8::1", 4690)),
    ],
)
def test_split_host_port(text: str, expected: tuple[str, int]) -> None:
    assert split_host_port(text, 4690) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:x",
        "host:-1",
        "host:\u0664",
        "2001:db8::1:4690",
        "[2001:db8::1",
        "[2001:db8::1]4690",
        "[host]:1",
        "[]:1",
        "[2001:db8::1]:",
    ],
)
def test_split_host_port_refuses_with_a_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        split_host_port(text)
    assert repr(text) in str(caught.value)


def test_split_host_port_refuses_a_number_without_end() -> None:
    with pytest.raises(UsageError):
        split_host_port("host:" + "9" * 5000)
