"""An answer leaves from the address that was asked, on hosts that have several."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import heard_at
from dhtvpn.nat.demux import DHT_PREFIX_BYTES
from dhtvpn.nat.heard_at import HeardAt
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_messages import binding_request
from dhtvpn.nat.stun_service import StunService

ASKER = Endpoint("198.18.1.1", 1)
V4 = (socket.IPPROTO_IP, 8, struct.pack("=i4s4s", 3, bytes([198, 18, 0, 9]), bytes([198, 18, 0, 9])))
V6 = (socket.IPPROTO_IPV6, 50, bytes(range(20)))


def test_the_source_of_an_answer_is_what_was_asked() -> None:
    heard = HeardAt()
    assert heard.answer_to(ASKER) == []
    heard.remember(ASKER, [(socket.SOL_SOCKET, 1, b"else"), V4])
    ((level, kind, data),) = heard.answer_to(ASKER)
    # No interface: routing still decides the way; the source is ours to say.
    assert (level, kind, struct.unpack("=i4s4s", data)) == (0, 8, (0, bytes([198, 18, 0, 9]), bytes(4)))
    heard.remember(ASKER, [V6])
    assert heard.answer_to(ASKER) == [V6]
    heard.remember(ASKER, [])
    assert heard.answer_to(ASKER) == [V6]
    assert heard.address_for(ASKER) == ip_address(bytes(range(16)))
    heard.forget(ASKER)
    heard.forget(ASKER)
    assert heard.answer_to(ASKER) == [] and heard.address_for(ASKER) is None
    heard.remember(ASKER, [V4])
    assert heard.address_for(ASKER) == ip_address("198.18.0.9")
    heard.forget_all()
    assert heard.address_for(ASKER) is None


def test_askers_remembered_have_a_cap() -> None:
    heard = HeardAt()
    for number in range(heard_at.MAX_REMEMBERED + 5):
        heard.remember(Endpoint("198.18.1.1", 1 + number), [V4])
        heard.remember(ASKER, [V4])
    assert len(heard) == heard_at.MAX_REMEMBERED
    assert heard.answer_to(ASKER), "the latest stay"


async def _ask(port: UdpPort, address: str, question: bytes) -> bytes:
    """What comes back to a socket that takes answers from ``address`` alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setblocking(False)
        asker.bind(("127.0.0.1", 0))
        asker.connect((address, port.port))
        asker.send(question)
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(asker, 2000), 5)


async def test_dht_and_stun_answers_come_from_the_address_that_was_asked(
    open_port: Callable[..., Awaitable[UdpPort]],
) -> None:
    port = await open_port(host_v4="0.0.0.0", host_v6=None)
    StunService(port)
    port.on_dht(lambda data, source: port.send_dht(b"answer to " + data, source))
    for address in ("127.0.0.1", "127.0.0.7", "127.0.0.9"):
        assert await _ask(port, address, DHT_PREFIX_BYTES + b"one") == DHT_PREFIX_BYTES + b"answer to one"
        assert (await _ask(port, address, binding_request(bytes(12))))[:2] == b"\x01\x01"


async def test_an_address_that_was_taken_away_is_given_up(
    open_port: Callable[..., Awaitable[UdpPort]],
) -> None:
    port = await open_port(host_v6=None)
    receiver = await open_port(host_v6=None)
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    receiver.on_dht(lambda data, _: arrived.put_nowait(data))
    target = Endpoint("127.0.0.1", receiver.port)
    gone = struct.pack("=i4s4s", 0, bytes([198, 18, 77, 77]), bytes(4))
    port._heard_at.remember(target, [(socket.IPPROTO_IP, 8, gone)])
    assert port.send_dht(b"still sent", target)
    assert await asyncio.wait_for(arrived.get(), 5) == b"still sent"
    assert port._heard_at.answer_to(target) == []
    assert port.drops.as_dict() == {}, "the refusal of that address is no drop"


def test_a_neighbour_is_answered_from_where_its_interface_says() -> None:
    heard = HeardAt()
    neighbour = Endpoint("fe80:3::1", 1)
    heard.remember(neighbour, [V6])
    assert heard.answer_to(neighbour) == [] and heard.address_for(neighbour) is None
