"""The nodes of the simulation: filled tables, hostile parts, the trace of a lookup, churn."""

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest
from virtual_time import run

from dhtvpn.discovery.contact import IPV4
from dhtvpn.discovery.floors import FLOOR_OVERHEAD
from dhtvpn.discovery.publishing import EARLY
from dhtvpn.discovery.shortlist import REPLICAS
from dhtvpn.discovery.storage import ENTRY_OVERHEAD
from dhtvpn.discovery.subscriptions import SUBSCRIPTION_OVERHEAD
from dhtvpn.discovery.wire import KIND_REPLY, Request, Rpc, decode_reply, encode_request, split
from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.simulation import clock, rest
from dhtvpn.lab.simulation.address_plan import endpoints
from dhtvpn.lab.simulation.churn import Churn
from dhtvpn.lab.simulation.held import octets_of
from dhtvpn.lab.simulation.hostile import Conspiracy, HostileNode, Part
from dhtvpn.lab.simulation.internet import Internet, Line
from dhtvpn.lab.simulation.latency import Latencies
from dhtvpn.lab.simulation.nodes import make_node
from dhtvpn.lab.simulation.population import Population
from dhtvpn.lab.simulation.publications import Publication
from dhtvpn.lab.simulation.trace import Trace

TARGET = bytes(range(20))
MESSAGE_ID = b"m" * 20


def in_world(scenario: Any, nodes: int = 40) -> None:
    async def inside() -> None:
        rng = random.Random(5)
        internet = Internet(Latencies(nodes + 100, rng), rng, loss=0.0)
        population = Population(internet, nodes, rng)
        try:
            await scenario(population, rng)
            assert internet.errors == []
        finally:
            await asyncio.gather(*(node.close() for node in population.nodes))

    run(inside())


def test_tables_are_filled_with_the_nodes_around_each_node() -> None:
    async def scenario(population: Population, rng: random.Random) -> None:
        sizes = [node.directory.size for node in population.nodes]
        assert min(sizes) >= 20
        assert max(sizes) < len(population.nodes)

    in_world(scenario)


def test_contacts_do_not_grow_old_from_one_experiment_to_the_next() -> None:
    async def scenario(population: Population, rng: random.Random) -> None:
        def old() -> int:
            tables = [node.directory._table for node in population.nodes]
            return sum(len(table.to_check(TARGET, 8, IPV4, clock.monotonic())) for table in tables)

        await asyncio.sleep(3600.0)
        assert old() == 8 * len(population.nodes)
        population.keep_up()
        assert old() == 0

    in_world(scenario)


def asker(population: Population) -> tuple[Line, list[bytes]]:
    """A line that keeps what it hears."""
    site = len(population.nodes)
    line = population.internet.connect(endpoints(site, 1)[0], site)
    heard: list[bytes] = []
    line.handler = lambda data, source: heard.append(data)
    return line, heard


def asked(part: Part, rpc: Rpc, payload: bytes = b"", seen: list[bytes] | None = None) -> list[bytes]:
    """Every datagram that a hostile node of this part answers with."""
    found: list[bytes] = []

    async def scenario(population: Population, rng: random.Random) -> None:
        conspiracy = Conspiracy(population.nodes[:10], rng)
        conspiracy.seen[TARGET] = seen or []
        line, heard = asker(population)
        node = HostileNode(population.nodes[0], part, conspiracy)
        request = Request(rpc, b"a" * 20, target=TARGET, payload=payload)
        node.handle_datagram(encode_request(MESSAGE_ID, request), line.endpoint)
        await asyncio.sleep(5.0)
        found.extend(heard)

    in_world(scenario)
    return found


def contacts(datagram: bytes) -> list[Endpoint]:
    kind, message_id, body = split(datagram)
    assert (kind, message_id) == (KIND_REPLY, MESSAGE_ID)
    return [c.endpoint for c in decode_reply(Rpc.FIND, body, endpoints(0, 1)[0]).contacts]


def test_hostile_nodes_answer_pings_whatever_their_part() -> None:
    for part in Part:
        assert len(asked(part, Rpc.PING)) == 1


def test_the_silent_one_says_nothing_to_a_lookup() -> None:
    assert asked(Part.SILENT, Rpc.FIND) == []


def test_the_colluding_one_names_only_its_own_kind() -> None:
    (reply,) = asked(Part.COLLUDE, Rpc.FIND)
    assert len(contacts(reply)) == 8
    assert set(contacts(reply)) <= set(endpoints(0, 10))


def test_the_inventing_one_names_nodes_that_do_not_exist() -> None:
    (reply,) = asked(Part.INVENT, Rpc.FIND)
    assert contacts(reply)
    assert not set(contacts(reply)) & set(endpoints(0, 200))


def test_the_replaying_one_hands_out_the_oldest_envelope() -> None:
    replies = asked(Part.REPLAY, Rpc.FIND, seen=[b"old", b"new"])
    assert any(b"old" in datagram for datagram in replies)
    assert not any(b"new" in datagram for datagram in replies)


def test_the_forging_one_damages_what_it_has_seen() -> None:
    replies = asked(Part.FORGE, Rpc.FIND, seen=[bytes(200)])
    assert len(replies) > 2
    assert not any(bytes(200) in datagram for datagram in replies)


def test_the_flooding_one_answers_many_times() -> None:
    assert len(asked(Part.FLOOD, Rpc.FIND)) > 20


def test_every_hostile_node_keeps_what_it_is_given_to_store() -> None:
    async def scenario(population: Population, rng: random.Random) -> None:
        conspiracy = Conspiracy(population.nodes, rng)
        conspiracy.take_over()
        member = make_node(population.internet, endpoints(60, 1)[0], 60, rng)
        await member.directory.bootstrap([population.nodes[1].line.endpoint])
        publication = Publication.make(rng, member.line.endpoint)
        assert await member.directory.publish(publication.topic.dht_key, publication.seal_next()) > 0
        assert conspiracy.seen[publication.topic.dht_key] == publication.envelopes
        conspiracy.give_back()
        assert all(node.directory.stored == 0 for node in population.nodes)
        await member.close()

    in_world(scenario)


def test_the_judge_knows_what_was_sealed() -> None:
    async def scenario(population: Population, rng: random.Random) -> None:
        publication, other = (Publication.make(rng, endpoints(60, 1)[0]) for _ in range(2))
        envelope = publication.seal_next()
        assert not publication.is_forged(envelope)
        assert publication.is_forged(other.seal_next())
        assert publication.is_forged(envelope[:-1] + bytes([envelope[-1] ^ 1]))

    in_world(scenario)


def test_the_trace_counts_rounds_and_datagrams_of_one_lookup() -> None:
    async def scenario(population: Population, rng: random.Random) -> None:
        member = make_node(population.internet, endpoints(60, 1)[0], 60, rng, behind_nat=True)
        trace = Trace(member.line)
        await member.directory.bootstrap([population.nodes[0].line.endpoint])
        await asyncio.sleep(5.0)
        trace.stop()
        assert trace.rounds >= 2
        assert trace.sent == trace.received
        assert trace.octets_sent == member.line.sent_octets
        before = trace.sent
        await member.directory.bootstrap([population.nodes[1].line.endpoint])
        assert trace.sent == before
        await member.close()

    in_world(scenario)


def test_churn_keeps_the_number_of_nodes_and_newcomers_find_their_place() -> None:
    async def scenario(population: Population, rng: random.Random) -> None:
        before = list(population.nodes)
        churn = Churn(population, 61, rng)
        task = asyncio.create_task(churn.run())
        await asyncio.sleep(6000.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        newcomers = [node for node in population.nodes if node not in before]
        assert len(population.nodes) == len(before)
        assert 0 < len(newcomers) <= churn.replaced
        assert all(node.directory.size > 5 for node in newcomers)
        assert sum(not node.line.up for node in before) > 0

    in_world(scenario)


def test_held_octets_are_those_of_all_three_tables_at_what_the_caps_count() -> None:
    directory: Any = SimpleNamespace(
        storage=SimpleNamespace(size_bytes=5000, floors=2), subscriptions=["lease"] * 3
    )
    assert octets_of(directory) == 5000 + 2 * FLOOR_OVERHEAD + 3 * SUBSCRIPTION_OVERHEAD


def test_what_storing_nodes_hold_for_many_networks_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record lies at REPLICAS nodes or a few more. What members send is what storing nodes receive."""
    monkeypatch.setattr(rest, "WARM_UP_S", 120.0)
    figures: list[Any] = []

    async def scenario(population: Population, rng: random.Random) -> None:
        figures.extend(await rest.serving_many(population, 3, 0.15, rng))

    in_world(scenario, nodes=30)
    member, storing = figures
    assert (member.kind, storing.kind) == ("member", "storing")
    assert member.members == storing.members == member.measured == 3 * rest.CROWD_EACH
    assert storing.measured == 30
    assert member.held is None
    held = storing.held
    least, most = (member.members * copies / 30 for copies in (REPLICAS, REPLICAS + EARLY))
    assert 0.98 * least <= held.envelopes <= most, (
        "a first publication may store early at some who are not closest"
    )
    assert held.stored_octets > held.envelopes * (ENTRY_OVERHEAD + 300)
    assert 0 < held.subscriptions <= held.envelopes
    parts = held.stored_octets + held.floors * FLOOR_OVERHEAD + held.subscriptions * SUBSCRIPTION_OVERHEAD
    assert held.octets == pytest.approx(parts)
    assert held.worst_octets > held.octets
    sent = member.sent * member.measured + storing.sent * storing.measured
    received = member.received * member.measured + storing.received * storing.measured
    assert sent == pytest.approx(received, rel=0.02), "there is no loss here"
    assert storing.received * storing.measured > member.sent * member.measured * 0.9
