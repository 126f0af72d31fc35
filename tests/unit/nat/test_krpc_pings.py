"""Pings of the BitTorrent DHT from our own port, on loopback: what counts as an answer, and when it ends."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError
from dhtvpn.nat import krpc, krpc_pings
from dhtvpn.nat.krpc_pings import KrpcPings
from dhtvpn.nat.reflexive import Mapping, survey

SEEN = Endpoint("198.51.100.7", 50123)


def answer(transaction: bytes, seen: Endpoint = SEEN) -> bytes:
    compact = seen.pack()
    return b"d2:ip%d:%b1:rd2:id20:%be1:t%d:%b1:y1:re" % (
        len(compact),
        compact,
        bytes(20),
        len(transaction),
        transaction,
    )


class Node(asyncio.DatagramProtocol):
    """Answers with what ``reply`` makes of a transaction id."""

    def __init__(self, reply: Callable[[bytes], list[bytes]]) -> None:
        self._reply = reply
        self.heard: list[bytes] = []

    def connection_made(self, transport) -> None:
        self._transport = transport
        self.endpoint = Endpoint.from_socket(transport.get_extra_info("sockname"))

    def datagram_received(self, data, source) -> None:
        self.heard.append(data)
        mark = data.index(b"1:t8:") + 5
        for datagram in self._reply(data[mark : mark + 8]):
            self._transport.sendto(datagram, source)


@pytest.fixture
async def node():
    transports = []

    async def start(reply, host="127.0.0.1") -> Node:
        loop = asyncio.get_running_loop()
        transport, opened = await loop.create_datagram_endpoint(
            lambda: Node(reply), local_addr=(host, 0), family=socket.AF_INET
        )
        transports.append(transport)
        return opened

    yield start
    for transport in transports:
        transport.close()


async def test_a_node_says_where_it_sees_us(open_port, node) -> None:
    port, there = await open_port(), await node(lambda transaction: [answer(transaction)])
    assert await KrpcPings(port).ask(there.endpoint, 5.0) == SEEN
    (ping,) = there.heard
    assert b"2:roi1e" in ping, "whoever asks is put into no routing table (BEP 43)"
    assert port.drops.as_dict() == {}


async def test_what_nobody_asked_for_is_dropped_and_counted(open_port, node) -> None:
    port = await open_port()
    asked = await node(lambda _: [])
    liar = await node(lambda _: [])
    pings = KrpcPings(port)
    asking = asyncio.create_task(pings.ask(asked.endpoint, 5.0))
    while not asked.heard:  # noqa: ASYNC110 - the condition is a list of the other side
        await asyncio.sleep(0.001)
    mark = asked.heard[0].index(b"1:t8:") + 5
    transaction = asked.heard[0][mark : mark + 8]
    pings.handle_datagram(answer(b"notasked"), asked.endpoint)
    pings.handle_datagram(answer(transaction), liar.endpoint)
    pings.handle_datagram(krpc.ping(bytes(20), transaction), asked.endpoint)
    pings.handle_datagram(b"d" * 100, asked.endpoint)
    pings.handle_datagram(b"d", asked.endpoint)
    assert port.drops.as_dict() == {
        "krpc.transaction": 1,
        "krpc.source": 1,
        "krpc.kind": 1,
        "krpc.format": 1,
        "krpc.size": 1,
    }
    for _ in range(2):
        pings.handle_datagram(answer(transaction), asked.endpoint)
    assert await asking == SEEN


async def test_silence_ends_and_is_asked_again_meanwhile(open_port, node) -> None:
    port, silent = await open_port(), await node(lambda _: [])
    with pytest.raises(TimedOutError, match="no answer"):
        await KrpcPings(port).ask(silent.endpoint, krpc_pings.AGAIN_S * 1.5)
    assert len(silent.heard) == 2 and len(set(silent.heard)) == 1


async def test_pings_under_way_are_capped(open_port, node) -> None:
    port, silent = await open_port(), await node(lambda _: [])
    pings = KrpcPings(port)
    many = [asyncio.create_task(pings.ask(silent.endpoint, 5.0)) for _ in range(krpc_pings.MAX_PINGS)]
    await asyncio.sleep(0)
    with pytest.raises(TimedOutError, match="under way"):
        await pings.ask(silent.endpoint, 5.0)
    for task in many:
        task.cancel()
    await asyncio.gather(*many, return_exceptions=True)
    with pytest.raises(TimedOutError, match="no answer"):
        await pings.ask(silent.endpoint, 0.01)


async def test_a_survey_asks_nodes_in_place_of_stun_servers(open_port, node) -> None:
    port = await open_port(host_v6=None)
    hosts = ("127.0.0.1", "127.0.0.2")  # two ports of one address would count as one
    nodes = [await node(lambda transaction: [answer(transaction)], host) for host in hosts]
    pings = KrpcPings(port)
    found = await survey(
        port,
        [one.endpoint for one in nodes],
        host_addresses=["192.0.2.1"],
        ask=lambda _, server, timeout_s: pings.ask(server, timeout_s),
    )
    assert found.public_endpoints == [SEEN]
    assert found.mapping is Mapping.ENDPOINT_INDEPENDENT
