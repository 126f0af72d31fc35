"""Which endpoint do others see: the judgement pure, the questions on loopback."""

import asyncio

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError
from dhtvpn.nat.reflexive import SERVERS_PER_FAMILY, Mapping, ask, choose_servers, judge, survey
from dhtvpn.nat.stun_messages import binding_response
from dhtvpn.nat.stun_service import StunService

S1, S2, S3 = Endpoint("198.51.100.1", 1), Endpoint("198.51.100.2", 1), Endpoint("198.51.100.3", 1)
OURS = Endpoint("192.168.1.5", 4000)
PUBLIC, OTHER = Endpoint("203.0.113.9", 4000), Endpoint("203.0.113.9", 4001)


@pytest.mark.parametrize(
    ("answers", "mapping", "public"),
    [
        ({}, Mapping.UNKNOWN, ()),
        ({S1: OURS}, Mapping.NONE, (OURS,)),
        ({S1: OURS, S2: OURS}, Mapping.NONE, (OURS,)),
        ({S1: PUBLIC}, Mapping.UNKNOWN, (PUBLIC,)),
        ({S1: PUBLIC, S2: PUBLIC}, Mapping.ENDPOINT_INDEPENDENT, (PUBLIC,)),
        ({S1: PUBLIC, S2: OTHER}, Mapping.ADDRESS_AND_PORT_DEPENDENT, (PUBLIC, OTHER)),
        ({S1: OURS, S2: PUBLIC}, Mapping.UNKNOWN, (PUBLIC,)),
        ({S1: OURS, S2: PUBLIC, S3: PUBLIC}, Mapping.ENDPOINT_INDEPENDENT, (PUBLIC,)),
        ({S1: Endpoint("192.168.1.5", 4001)}, Mapping.UNKNOWN, (Endpoint("192.168.1.5", 4001),)),
    ],
)
def test_the_mapping_follows_from_what_the_servers_saw(answers, mapping, public) -> None:
    result = judge(answers, ["192.168.1.5"], 4000)
    assert (result.mapping, result.public_endpoints, result.answered) == (mapping, public, len(answers))


@pytest.mark.parametrize(
    ("ports", "expected"),
    [([4001, 4002, 4005], True), ([4002, 4001, 4003], False), ([4001, 4002], None), ([4000, 4000], None)],
)
def test_ports_in_order_are_told_from_others_by_three_servers(
    ports: list[int], expected: bool | None
) -> None:
    servers = [Endpoint(f"198.51.100.{number}", 1) for number in range(9)]
    seen = [Endpoint(PUBLIC.host, port) for port in ports]
    found = judge(dict(zip(servers, seen, strict=False)), ["192.168.1.5"], 4000)
    assert (found.in_order, found.witnesses) == (expected, tuple(servers[: len(ports)]))
    elsewhere = [*seen[:-1], Endpoint("203.0.113.10", ports[-1])]
    assert judge(dict(zip(servers, elsewhere, strict=False)), [], 4000).in_order is None


def test_servers_are_chosen_on_different_addresses_and_few() -> None:
    servers = [
        S1,
        Endpoint(S1.host, 2),
        *(Endpoint(f"198.51.100.{n}", 1) for n in range(2, 20)),
        Endpoint("::1", 1),
    ]
    chosen = choose_servers(servers, (4, 6))
    assert chosen[4] == [Endpoint(f"198.51.100.{n}", 1) for n in range(1, SERVERS_PER_FAMILY + 1)]
    assert chosen[6] == [Endpoint("::1", 1)]
    assert choose_servers(servers, (6,)) == {6: [Endpoint("::1", 1)]}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_node_tells_which_endpoint_it_sees(open_port, host) -> None:
    port, server = await open_port(), await open_port()
    StunService(server)
    assert await ask(port, Endpoint(host, server.port), 5) == Endpoint(host, port.port)
    assert port.stun.transactions == 0


async def test_a_lost_question_is_asked_again(open_port) -> None:
    port, server = await open_port(), await open_port()
    asked: list[bytes] = []

    def answer_the_second(message, source) -> None:
        asked.append(message.transaction_id)
        if len(asked) == 2:
            server.send(binding_response(message.transaction_id, source), source)

    server.stun.on_binding_request(answer_the_second)
    assert await ask(port, Endpoint("127.0.0.1", server.port), 5) == Endpoint("127.0.0.1", port.port)
    assert len(set(asked)) == 1


async def test_an_answer_from_elsewhere_or_to_another_question_is_dropped(open_port) -> None:
    port, server, liar = await open_port(), await open_port(), await open_port()
    lie = Endpoint("203.0.113.66", 6)

    def lie_first(message, source) -> None:
        liar.send(binding_response(message.transaction_id, lie), source)
        server.send(binding_response(b"x" * 12, lie), source)
        server.send(binding_response(message.transaction_id, Endpoint("203.0.113.66", 0)), source)
        server.send(binding_response(message.transaction_id, source), source)

    server.stun.on_binding_request(lie_first)
    assert await ask(port, Endpoint("127.0.0.1", server.port), 5) == Endpoint("127.0.0.1", port.port)
    drops = port.drops.as_dict()
    assert drops["stun.transaction"] == 1
    assert drops["stun.response"] == 1
    assert drops["stun.source"] == 1


async def test_silence_times_out_and_leaves_nothing(open_port) -> None:
    port, silent = await open_port(), await open_port()
    with pytest.raises(TimedOutError, match="no answer"):
        await ask(port, Endpoint("127.0.0.1", silent.port), 0.05)
    assert port.stun.transactions == 0


async def test_a_survey_does_not_wait_for_the_dead(open_port) -> None:
    port, alive, dead = await open_port(), await open_port(), await open_port(host_v4="127.0.0.2")
    StunService(alive)
    servers = [
        Endpoint("127.0.0.2", dead.port),
        Endpoint("127.0.0.1", alive.port),
        Endpoint("::1", alive.port),
    ]
    loop = asyncio.get_running_loop()
    started = loop.time()
    result = await survey(port, servers, host_addresses=["127.0.0.1", "2001:db8::1"], timeout_s=30)
    assert loop.time() - started < 5
    assert result.mapping is Mapping.NONE
    assert result.by_family[4].public_endpoints == (Endpoint("127.0.0.1", port.port),)
    assert result.by_family[6].mapping is Mapping.UNKNOWN
    assert result.public_endpoints == [Endpoint("127.0.0.1", port.port), Endpoint("::1", port.port)]
    assert port.stun.transactions == 0


async def test_a_survey_of_two_addresses_tells_the_mapping(open_port) -> None:
    port = await open_port(host_v4="127.0.0.1")
    servers = []
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        server = await open_port(host_v4=host, host_v6=None)
        StunService(server)
        servers.append(Endpoint(host, server.port))
    result = await survey(port, servers)
    assert result.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert result.by_family[4].answered == 3
    assert result.public_endpoints == [Endpoint("127.0.0.1", port.port)]


async def test_a_survey_without_servers_is_unknown(open_port) -> None:
    result = await survey(await open_port(), [])
    assert result.mapping is Mapping.UNKNOWN
    assert result.public_endpoints == []
