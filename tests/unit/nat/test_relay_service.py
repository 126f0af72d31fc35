"""A volunteer's relay on loopback: members register, and datagrams come out where the id is."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.relay_wire import (
    NO_TOKEN,
    NotHere,
    Register,
    Registered,
    Stranger,
    Token,
    data_header,
    decode_service,
    encode_service,
    relay_id,
    wrap_handshake,
)
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.relay_service import RelayService
from dhtvpn.nat.relay_table import RelayTable

DEADLINE_S = 3.0
SOL_UDP, UDP_SEGMENT = 17, 103


class FixedTokens:
    def issue(self, endpoint: Endpoint, now: float) -> bytes:
        return struct.pack("!Q", endpoint.port)

    def valid(self, token_untrusted: bytes, endpoint: Endpoint, now: float) -> bool:
        return token_untrusted == struct.pack("!Q", endpoint.port)


class Member:
    def __init__(self, relay: Endpoint, number: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.relay = relay
        self.claim = bytes([number]) * 16
        self.id = relay_id(self.claim)

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, self.relay)

    async def receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.socket, 65536), DEADLINE_S)

    async def register(self) -> None:
        self.send(encode_service(Register(self.claim, NO_TOKEN)))
        token = decode_service(await self.receive())
        assert isinstance(token, Token)
        self.send(encode_service(Register(self.claim, token.token)))
        assert decode_service(await self.receive()) == Registered(self.id, 60)


class Bench:
    def __init__(self, port: UdpPort, drops: Drops) -> None:
        self.drops = drops
        self.table = RelayTable(FixedTokens(), rate=1e9, source_rate=1e9, drops=drops, now=time.monotonic())
        self.service = RelayService(port, self.table, drops)
        self.relay = Endpoint("127.0.0.1", port.port)
        self.members = [Member(self.relay, number) for number in range(3)]


@asynccontextmanager
async def bench(*, demux: bool = True) -> AsyncIterator[Bench]:
    drops = Drops()
    port = await UdpPort.open(None, "127.0.0.1", None, drops=drops, tunnel_sockets=demux)
    built = Bench(port, drops)
    port.filter_in_kernel(None, relaying=True)
    built.service.start()
    try:
        yield built
    finally:
        built.service.close()
        port.close()
        for member in built.members:
            member.socket.close()


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(int(DEADLINE_S / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError


async def test_data_and_handshake_messages_come_out_as_they_went_in() -> None:
    async with bench() as built:
        a, b, _ = built.members
        await a.register()
        await b.register()
        data = data_header(b.id) + b"\x04\0\0\0" + os.urandom(1200)
        a.send(data)
        assert await b.receive() == data
        handshake = wrap_handshake(a.id, b.id, b"\x02\0\0\0" + os.urandom(88))
        b.send(handshake)
        assert await a.receive() == handshake
        assert built.table.relayed == 2
        assert built.table.relayed_octets == len(data) + len(handshake)


async def test_a_run_leaves_as_it_came() -> None:
    async with bench() as built:
        a, b, _ = built.members
        await a.register()
        await b.register()
        datagrams = [data_header(b.id) + b"\x05\0\0\0" + os.urandom(600) for _ in range(20)]
        option = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(datagrams[0])))]
        a.socket.sendmsg([b"".join(datagrams)], option, 0, built.relay)
        assert [await b.receive() for _ in datagrams] == datagrams


async def test_a_run_for_two_is_parted() -> None:
    async with bench() as built:
        a, b, c = built.members
        for member in built.members:
            await member.register()
        run = [data_header(each.id) + b"\x04\0\0\0" + os.urandom(100) for each in (b, b, c, b)]
        option = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(run[0])))]
        a.socket.sendmsg([b"".join(run)], option, 0, built.relay)
        assert [await b.receive() for _ in range(3)] == [run[0], run[1], run[3]]
        assert await c.receive() == run[2]


async def test_strangers_and_unknown_ids_are_told_so_and_nothing_passes() -> None:
    async with bench() as built:
        a, b, _ = built.members
        await a.register()
        data = data_header(b.id) + b"\x04\0\0\0" + bytes(60)
        b.send(data_header(a.id) + data[8:])
        assert decode_service(await b.receive()) == Stranger()
        a.send(data)
        assert decode_service(await a.receive()) == NotHere(b.id)
        assert built.table.relayed == 0


async def test_garbage_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as built:
        a = built.members[0]
        await a.register()
        for data in (b"\xdb", b"\xdb\x09", b"\xdb\x01" + bytes(3), b"\xda" + bytes(200), b"\xd9" + bytes(39)):
            a.send(data)
        for data in (encode_service(Token(bytes(8))), encode_service(NotHere(a.id))):
            a.send(data)
        await eventually(lambda: built.drops.as_dict().get("relay.unasked") == 2)
        built.service.handshake_datagram(b"\xda", Endpoint("127.0.0.1", 9))
        built.service.service_datagram(b"", Endpoint("127.0.0.1", 9))
        assert built.table.relayed == 0 and not caplog.records


async def test_without_help_of_the_kernel_it_relays_all_the_same() -> None:
    async with bench(demux=False) as built:
        built.service._sockets = {4: built.service._port._sockets.control[4]}
        a, b, _ = built.members
        await a.register()
        await b.register()
        data = data_header(b.id) + b"\x04\0\0\0" + os.urandom(60)
        built.service._data_datagram(data, Endpoint(*a.socket.getsockname()))
        assert await b.receive() == data


async def test_notices_are_few() -> None:
    async with bench() as built:
        b = built.members[1]
        for _ in range(300):
            b.send(data_header(b.id) + b"\x04\0\0\0" + bytes(60))
        await eventually(lambda: built.drops.as_dict().get("relay.stranger", 0) >= 200)
        count = 0
        with pytest.raises(TimeoutError):
            while True:
                await asyncio.wait_for(b.receive(), 0.1)
                count += 1
        assert 0 < count < 150
