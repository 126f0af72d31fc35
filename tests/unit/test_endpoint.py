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
        (("fe80::1%eth0", 7, 0, 3), Endpoint("fe80:3::1", 7)),
        (("fe80::1", 7, 0, 0x1_0000), Endpoint("fe80::1", 7)),
        (("fe80::1", 7), Endpoint("fe80::1", 7)),
        (("fe80:5::1", 7, 0, 3), Endpoint("fe80::1", 7)),
        (("fe80:0:5::1", 7, 0, 3), Endpoint("fe80::1", 7)),
        (("febf::1", 7, 0, 3), Endpoint("fe80::1", 7)),
        (("fe8::1", 7, 0, 0), Endpoint("fe8::1", 7)),
        (("2001:db8::1", 7, 0, 0), Endpoint("2001:db8::1", 7)),
    ],
)
def test_from_socket_has_one_spelling(address: tuple[str, int], endpoint: Endpoint) -> None:
    assert Endpoint.from_socket(address) == endpoint


NEIGHBOUR = Endpoint("fe80:3::abcd:1", 4690)


def test_a_link_local_endpoint_has_a_zone_inside_and_none_outside() -> None:
    assert NEIGHBOUR.is_link_local and NEIGHBOUR.zone == 3
    assert NEIGHBOUR.socket_address == ("fe80::abcd:1", 4690, 0, 3)
    assert str(NEIGHBOUR) == "[fe80::abcd:1%3]:4690"
    assert NEIGHBOUR.pack().hex() == "fe80" + "00" * 10 + "abcd0001" + "1252"
    assert NEIGHBOUR.pack_local().hex() == "fe800003" + "00" * 8 + "abcd0001" + "1252"
    assert Endpoint.unpack_local(NEIGHBOUR.pack_local()) == NEIGHBOUR
    bare = Endpoint.unpack(NEIGHBOUR.pack())
    assert bare == NEIGHBOUR.without_zone() and bare.zone == 0 and str(bare) == "[fe80::abcd:1]:4690"
    assert bare.in_zone(3) == NEIGHBOUR


@pytest.mark.parametrize("zone", [-1, 0, 0x1_0000])
def test_there_is_no_such_zone(zone: int) -> None:
    assert Endpoint("fe80::1", 1).in_zone(zone).zone == 0


@pytest.mark.parametrize("host", ["192.0.2.1", "169.254.0.1", "2001:db8::1", "fe8::1", "fec0::1", "::1"])
def test_nothing_else_has_a_zone(host: str) -> None:
    endpoint = Endpoint(host, 1)
    assert not endpoint.is_link_local and endpoint.zone == 0
    assert endpoint.in_zone(3) is endpoint and endpoint.without_zone() is endpoint
    assert Endpoint.from_socket(endpoint.socket_address) == endpoint


@pytest.mark.parametrize("host", ["fe80:3::1", "fe80:0:1::1", "fe80:0:0:1::1", "fe90::1", "febf::1"])
def test_nobody_else_names_an_interface_of_ours(host: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Endpoint.unpack(Endpoint(host, 1).pack_local())
    assert caught.value.reason == "endpoint"


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
