"""Does a NAT filter by port: the question, both answers, and the verdicts, on loopback."""

import socket

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import filtering, plain_stun
from dhtvpn.nat.filter_test import REQUEST_SIZE, request, transaction_of
from dhtvpn.nat.filtering import Filtering, find_filtering
from dhtvpn.nat.plain_stun import PlainStunService
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_messages import parse
from dhtvpn.nat.stun_service import StunService

ID = bytes(range(12))
HEADERS = {4: 28, 6: 48}
SERVICES = [StunService, PlainStunService]


def test_the_question_byte_for_byte() -> None:
    expected = "0001008c2112a442" + ID.hex() + "000300040000000200260080" + "00" * 128
    assert request(ID).hex() == expected and len(request(ID)) == REQUEST_SIZE
    parse(request(ID))
    assert transaction_of(request(ID)) == ID


@pytest.mark.parametrize("position", [0, 3, 5, 21, 27, 29, 159])
def test_anything_else_is_no_question(position: int) -> None:
    changed = bytearray(request(ID))
    changed[position] ^= 1
    assert transaction_of(bytes(changed)) is None
    assert transaction_of(request(ID)[:-4]) is None and transaction_of(b"") is None


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_without_a_filter_the_other_port_gets_in(open_port, service, host) -> None:
    asker, server = await open_port(), await open_port()
    service(server)
    assert await find_filtering(asker, Endpoint(host, server.port)) is Filtering.NOT_BY_PORT
    assert asker.stun.transactions == 0


@pytest.mark.parametrize("service", SERVICES)
async def test_a_filter_by_port_leaves_the_servers_own_answer(open_port, service, monkeypatch) -> None:
    monkeypatch.setattr(filtering, "DEADLINE_S", 0.1)
    monkeypatch.setattr(filtering, "SEND_AFTER_S", (0.0,))
    asker, server = await open_port(), await open_port()
    service(server)
    monkeypatch.setattr(server, "answer_from_other_port", lambda data, endpoint: 40000)
    endpoint = Endpoint("127.0.0.1", server.port)
    assert await find_filtering(asker, endpoint) is Filtering.BY_PORT


async def test_a_server_that_says_nothing_tells_nothing(open_port, monkeypatch) -> None:
    monkeypatch.setattr(filtering, "DEADLINE_S", 0.05)
    monkeypatch.setattr(filtering, "SEND_AFTER_S", (0.0,))
    asker, silent = await open_port(), await open_port()
    assert await find_filtering(asker, Endpoint("127.0.0.1", silent.port)) is Filtering.UNKNOWN


@pytest.mark.parametrize(("family", "host"), [(4, "127.0.0.1"), (6, "::1")])
async def test_both_answers_are_no_longer_than_the_question(open_port, monkeypatch, family, host) -> None:
    """With IP and UDP headers: whoever forges a source makes the server send no more than he sends."""
    port: UdpPort = await open_port()
    sizes: list[int] = []
    monkeypatch.setattr(port, "answer", lambda data, endpoint: sizes.append(len(data)))
    monkeypatch.setattr(
        port, "answer_from_other_port", lambda data, endpoint: sizes.append(len(data)) or 40000
    )
    plain_stun.answer_filter_test(port, ID, Endpoint(host, 4000))
    assert len(sizes) == 2
    assert sum(sizes) + 2 * HEADERS[family] <= REQUEST_SIZE + HEADERS[family]


async def test_the_second_port_takes_nothing_and_goes_with_the_first(open_port) -> None:
    port: UdpPort = await open_port()
    with socket.socket(type=socket.SOCK_DGRAM) as asker:
        asker.bind(("127.0.0.1", 0))
        asker.settimeout(5)
        number = port.answer_from_other_port(b"answer", Endpoint(*asker.getsockname()))
        assert asker.recvfrom(100) == (b"answer", ("127.0.0.1", number))
        assert number != port.port
        port.close()
        with socket.socket(type=socket.SOCK_DGRAM) as successor:
            successor.bind(("127.0.0.1", number))
