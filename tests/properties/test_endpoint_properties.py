"""Endpoints come in, go out and cross the machine as they are; others never see or set a zone."""

import contextlib
import socket

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.endpoint import MAX_ZONE, Endpoint
from dhtvpn.errors import DecodeError

PORTS = st.integers(1, 65535)
IDENTIFIERS = st.binary(min_size=8, max_size=8)
ZONES = st.integers(1, MAX_ZONE)
ANY_LINK_LOCAL = st.binary(min_size=16, max_size=16).map(
    lambda data: bytes((0xFE, 0x80 | data[1] & 0x3F)) + data[2:]
)


@given(IDENTIFIERS, PORTS, ZONES)
def test_a_neighbour_stays_the_same_all_the_way(identifier: bytes, port: int, zone: int) -> None:
    host = socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + identifier)
    endpoint = Endpoint.from_socket((host, port, 0, zone))
    assert endpoint.socket_address == (host, port, 0, zone)
    assert Endpoint.from_socket(endpoint.socket_address) == endpoint
    assert Endpoint.unpack_local(endpoint.pack_local()) == endpoint
    assert Endpoint.unpack(endpoint.pack()) == endpoint.without_zone() == Endpoint(host, port)
    assert endpoint.without_zone().in_zone(zone) == endpoint


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), PORTS)
def test_every_other_endpoint_is_one_thing_inside_and_outside(address: bytes, port: int) -> None:
    with contextlib.suppress(DecodeError):
        endpoint = Endpoint.unpack(address + port.to_bytes(2, "big"))
        assert endpoint.zone == 0
        assert Endpoint.from_socket(endpoint.socket_address) == endpoint
        assert Endpoint.unpack(endpoint.pack()) == Endpoint.unpack_local(endpoint.pack_local()) == endpoint


@given(ANY_LINK_LOCAL, PORTS)
def test_nobody_sets_a_zone_from_outside(address: bytes, port: int) -> None:
    try:
        endpoint = Endpoint.unpack(address + port.to_bytes(2, "big"))
    except DecodeError:
        assert address[:8] != b"\xfe\x80" + bytes(6)
    else:
        assert endpoint.is_link_local and endpoint.zone == 0


@given(ANY_LINK_LOCAL, PORTS, st.integers(0, 1 << 31))
def test_what_the_kernel_tells_is_on_its_link_or_on_none(address: bytes, port: int, scope: int) -> None:
    host = socket.inet_ntop(socket.AF_INET6, address)
    endpoint = Endpoint.from_socket((host, port, 0, scope))
    good = address[:8] == b"\xfe\x80" + bytes(6) and 0 < scope <= MAX_ZONE
    assert endpoint.zone == (scope if good else 0)
    assert endpoint.is_link_local and str(endpoint)
