"""Bytes from the network never raise out of nat/ and never go uncounted."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.nat.demux import Kind, classify
from dhtvpn.nat.ice_checks import PortConnection
from dhtvpn.nat.stun_messages import binding_response, is_authentic, mapped_endpoint, parse
from dhtvpn.nat.stun_router import StunRouter

SOURCE = Endpoint("192.0.2.1", 1000)
HEADER = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)

attribute = st.builds(
    lambda kind, value: (
        kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
    ),
    st.sampled_from(
        [1, 3, 4, 5, 6, 8, 9, 0xC, 0x14, 0x20, 0x24, 0x25, 0x8022, 0x8028, 0x8029, 0x802A, 0x7F00]
    ),
    st.binary(max_size=40),
)
well_framed = st.builds(
    lambda kind, body, id_: kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + HEADER[4:8] + id_ + body,
    st.integers(0, 0x3FFF),
    st.lists(attribute, max_size=8).map(b"".join),
    st.binary(min_size=12, max_size=12),
)


@dataclass(frozen=True)
class Own:
    own_ufrag: str = "left"
    own_password: str = "p" * 22
    peer_ufrag: str = "right"
    peer_password: str = "q" * 22
    controlling: bool = True


class SilentPort:
    """A port without a socket: sends go nowhere."""

    def __init__(self) -> None:
        self.drops = Drops()
        self.stun = StunRouter(self.drops)

    def send(self, data: bytes, endpoint: Endpoint) -> bool:
        return True

    answer = send


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as opened:
        yield opened


async def receive(*datagrams: bytes) -> tuple[dict[str, int], int]:
    """Give datagrams to a router with one waiting agent; what was dropped, and pairs made."""
    port = SilentPort()
    connection = PortConnection(port, Own())  # type: ignore[arg-type]
    connection.add_base(Endpoint("192.0.2.9", 1))
    connection.begin()
    port.stun.add_agent("left", connection.handle_request)
    for data in datagrams:
        port.stun.handle_datagram(data, SOURCE)
    pairs = len(connection._check_list)
    await connection.close()
    return port.drops.as_dict(), pairs


def authentic_check() -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, b"t" * 12)
    message.attributes.update({"USERNAME": "left:right", "PRIORITY": 1, "ICE-CONTROLLED": 2})
    message.add_message_integrity(b"p" * 22)
    return bytes(message)


@given(st.binary(max_size=200))
def test_classify_takes_anything(data: bytes) -> None:
    assert classify(data) in Kind


@given(
    st.one_of(st.binary(max_size=200), well_framed, st.binary(max_size=80).map(lambda tail: HEADER + tail))
)
def test_the_parser_raises_decode_error_only(data: bytes) -> None:
    try:
        message = parse(data)
    except DecodeError:
        return
    is_authentic(message, "p" * 22)


@given(well_framed)
def test_whatever_parses_reaches_no_agent_without_the_password(runner: asyncio.Runner, data: bytes) -> None:
    dropped, pairs = runner.run(receive(data))
    assert sum(dropped.values()) == 1
    assert pairs == 0


def test_the_authentic_check_makes_a_pair(runner: asyncio.Runner) -> None:
    assert runner.run(receive(authentic_check())) == ({}, 1)


@given(st.integers(0, len(authentic_check()) * 8 - 1))
def test_one_bit_changed_is_counted_and_changes_nothing(runner: asyncio.Runner, bit: int) -> None:
    altered = bytearray(authentic_check())
    altered[bit // 8] ^= 1 << bit % 8
    dropped, pairs = runner.run(receive(bytes(altered)))
    assert sum(dropped.values()) == 1
    assert pairs == 0


@given(st.integers(20, len(authentic_check()) - 1))
def test_a_truncated_check_is_counted(runner: asyncio.Runner, length: int) -> None:
    dropped, pairs = runner.run(receive(authentic_check()[:length]))
    assert sum(dropped.values()) == 1
    assert pairs == 0


LINK_LOCAL = ip_network("fe80::/64")
"""RFC 4291 section 2.5.6: the others have bits set where there have to be none."""


def _in_use(address: IPv6Address) -> bool:
    return address.ipv4_mapped is None and (not address.is_link_local or address in LINK_LOCAL)


endpoints = st.builds(
    lambda address, port: Endpoint(str(address), port),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(_in_use)),
    st.integers(1, 65535),
)


@given(endpoints, st.binary(min_size=12, max_size=12), st.booleans())
def test_a_mapped_address_survives_the_way(
    endpoint: Endpoint, transaction_id: bytes, fingerprint: bool
) -> None:
    data = binding_response(transaction_id, endpoint, fingerprint)
    assert len(data) <= 60
    assert mapped_endpoint(parse(data)) == endpoint
