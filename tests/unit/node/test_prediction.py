"""Foreseeing our port towards a peer, behind simulated NATs, in virtual time."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import virtual_time
from nat_in_memory import MemoryInternet, MemoryPort
from peers_in_table import add_peer

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.lab.nat_behaviour import SYMMETRIC, Allocation, Nat
from dhtvpn.mesh.peers import Occasion, Peer, PeerTable
from dhtvpn.mesh.relayed import relayed
from dhtvpn.nat.port_prediction import EARLIER, FAILURES, MAX_GUESSES
from dhtvpn.nat.reflexive import survey
from dhtvpn.node.prediction import Prediction
from dhtvpn.node.surroundings import PortsInOrder
from dhtvpn.records.record import (
    Candidate,
    CandidateKind,
    NatBehaviour,
    PublishedFiltering,
    PublishedMapping,
)

IN_ORDER = replace(SYMMETRIC, allocation=Allocation.CONTIGUOUS)
RESTRICTED = NatBehaviour(PublishedMapping.ENDPOINT_INDEPENDENT, PublishedFiltering.BY_PORT)
HOME = Endpoint("198.18.77.7", 4690)
"""Where the peer may be reached, as far as its NAT lets anybody in."""


class Bench:
    """A node behind ``nat``, of which each test is one evening; made in a loop."""

    def __init__(self, nat: Nat, others_per_s: float = 0.0) -> None:
        self.internet = MemoryInternet(servers=3)
        self.realm = self.internet.home([nat])
        self.port = self.internet.port(self.realm)
        self.arrived = MemoryPort(self.internet.outside, HOME)
        self.sources: list[Endpoint] = []
        """Where the peer's NAT has seen something of ours come from."""
        self.arrived._receive = None  # type: ignore[assignment, method-assign]
        self.internet.outside._machines[HOME.host] = lambda data, source, _: self.sources.append(source)
        peer = add_peer(PeerTable(), 9)
        self.peer, self.nat = peer, RESTRICTED
        self.peer.endpoint = relayed(1, 9)
        self.order: PortsInOrder | None = None
        self.network, self.may_probe = 0, True
        self.told: list[Peer] = []
        self.opened: list[MemoryPort] = []
        self.refused = False
        self.candidates = (
            Candidate(Endpoint("192.168.1.9", 4690), CandidateKind.HOST),
            Candidate(HOME, CandidateKind.REFLEXIVE),
        )
        self.tasks: list[asyncio.Task[object]] = []
        connector = SimpleNamespace(candidates=self.candidates, predicted=frozenset())
        self.connector = connector
        self.prediction = Prediction(
            surroundings=SimpleNamespace(ports_in_order=None),  # type: ignore[arg-type]
            member=lambda _: SimpleNamespace(nat=self.nat, connector=connector),  # type: ignore[arg-type, return-value]
            network=lambda: self.network,
            open_port=self._open_port,  # type: ignore[arg-type]
            send=self.port.send,
            may_probe=lambda _: self.may_probe,
            tell=self.told.append,
            in_background=self._start,
        )
        if others_per_s:
            self.tasks.append(asyncio.create_task(self._others(1 / others_per_s)))

    async def _open_port(self) -> MemoryPort:
        if self.refused:
            raise SystemRefusedError("no more sockets")
        self.opened.append(self.internet.port(self.realm))
        return self.opened[-1]

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def _others(self, pause_s: float) -> None:
        """Other machines behind the NAT make a new mapping now and then."""
        other = self.internet.port(self.realm)
        for number in range(1, 60_000):
            other.send(b"", Endpoint("198.18.99.9", number))
            await asyncio.sleep(pause_s)

    async def surveyed(self) -> None:
        """As a node does it when it starts and from time to time."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        servers = [server.endpoint for server in self.internet.servers]
        found = (await survey(self.port, servers)).by_family[4]  # type: ignore[arg-type]
        if found.in_order:
            self.order = PortsInOrder(found.witnesses[0], found.public_endpoints, asked_at)
        self.prediction._surroundings.ports_in_order = self.order
        self.prediction.surveyed()

    async def attempt(self) -> None:
        """One that finds nothing. Its checks come after what the prediction sends."""
        await self.prediction.attempt_begins(self.peer)
        self.port.send(b"", self.candidates[0].endpoint)
        self.port.send(b"", HOME)
        await asyncio.sleep(1)

    def guessed(self) -> list[Endpoint]:
        """What a signal would tell now."""
        told = self.prediction.for_signal(self.peer)
        assert all(candidate.kind is CandidateKind.PREDICTED for candidate in told)
        return [candidate.endpoint for candidate in told]


@pytest.mark.parametrize(("others_per_s", "most"), [(0, 1), (10, 1), (100, 2), (1000, 16)])
def test_two_looks_find_the_port_also_among_others(others_per_s: float, most: int) -> None:
    async def scenario() -> None:
        bench = Bench(replace(IN_ORDER, expiry_s=5), others_per_s)
        await bench.surveyed()
        await asyncio.sleep(2)
        await bench.attempt()
        (seen,) = set(bench.sources)
        assert seen in bench.guessed() and len(bench.guessed()) <= most
        assert bench.told == [bench.peer]
        assert all(port.stun.transactions == 0 for port in bench.opened) and len(bench.opened) == 2

    virtual_time.run(scenario())


@pytest.mark.parametrize("early_s", [0.0, 0.001, -0.02])
def test_an_attempt_that_did_not_wait_for_the_survey_is_made_up_for(early_s: float) -> None:
    """Also one that sent its first check before the survey's first question."""

    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        surveying = asyncio.create_task(bench.surveyed()) if early_s >= 0 else None
        await asyncio.sleep(abs(early_s))
        attempt = asyncio.create_task(bench.attempt())
        await asyncio.sleep(0.01)
        await (surveying or bench.surveyed())
        await attempt
        (seen,) = set(bench.sources)
        assert seen in bench.guessed() and len(bench.guessed()) <= EARLIER + 2

    virtual_time.run(scenario())


def test_the_mapping_that_still_lives_is_told_again() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        await bench.attempt()
        before = bench.guessed()
        await bench.attempt()
        assert bench.guessed()[: len(before)] == before and len(bench.told) == 2
        await asyncio.sleep(IN_ORDER.expiry_s)
        bench.sources.clear()
        await bench.attempt()
        (seen,) = set(bench.sources)
        assert bench.guessed()[0] == seen and bench.guessed()[1] == before[0]

    virtual_time.run(scenario())


def test_a_mapping_that_a_packet_has_made_before_the_attempt_is_near_the_first_look() -> None:
    """The NAT has forgotten the old one while packets went out."""

    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        await asyncio.sleep(IN_ORDER.expiry_s)
        bench.port.send(b"", HOME)
        bench.port.send(b"", Endpoint("198.18.88.8", 1))
        await asyncio.sleep(1)
        await bench.attempt()
        (seen,) = set(bench.sources)
        assert bench.guessed()[1] == seen and len(bench.guessed()) == EARLIER

    virtual_time.run(scenario())


def test_what_has_worked_once_is_not_told_again_after_the_path_is_lost() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        await bench.attempt()
        bench.prediction.attempt_failed(bench.peer)
        before = bench.guessed()
        bench.prediction.found(bench.peer)
        assert bench.prediction.tries(bench.peer).failed == 0 and bench.guessed() == []
        await asyncio.sleep(IN_ORDER.expiry_s)
        bench.port.send(b"", HOME)
        await bench.attempt()
        assert bench.sources[-1] == bench.guessed()[0] and len(bench.guessed()) == EARLIER
        assert bench.guessed()[0] not in before

    virtual_time.run(scenario())


def test_of_many_guesses_of_before_some_give_way_to_the_ports_before_a_look() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        await bench.attempt()
        tries = bench.prediction.tries(bench.peer)
        tries.guesses = tuple(Endpoint(tries.guesses[0].host, 40_000 + number) for number in range(16))
        known = tries.guesses
        await asyncio.sleep(IN_ORDER.expiry_s)
        bench.port.send(b"", HOME)
        await bench.attempt()
        assert bench.guessed()[:8] == list(known[:8]) and bench.guessed()[8] == bench.sources[-1]

    virtual_time.run(scenario())


def test_a_look_that_is_answered_when_there_is_a_direct_path_changes_nothing() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        await bench.prediction.attempt_begins(bench.peer)
        bench.peer.endpoint = HOME
        bench.peer.move(Occasion.SESSION_UP)
        await asyncio.sleep(1)
        assert bench.guessed() == [] == bench.told

    virtual_time.run(scenario())


def test_ports_by_chance_are_not_foreseen() -> None:
    async def scenario() -> None:
        bench = Bench(SYMMETRIC)
        await bench.attempt()
        await bench.surveyed()
        await bench.attempt()
        assert bench.guessed() == [] == bench.opened

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("nat", "opened"),
    [
        (NatBehaviour(PublishedMapping.DEPENDENT, PublishedFiltering.BY_PORT), 0),
        (replace(RESTRICTED, filtering=PublishedFiltering.NOT_BY_PORT), 0),
        (NatBehaviour(), 2),
    ],
)
def test_a_peer_that_has_no_use_for_it_is_told_nothing(nat: NatBehaviour, opened: int) -> None:
    """Of one that does not know its own NAT yet, the mapping is looked at as it is opened."""

    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        bench.nat = nat
        await bench.attempt()
        assert bench.guessed() == [] and len(bench.opened) == opened
        bench.nat = RESTRICTED
        assert len(bench.guessed()) == opened // 2

    virtual_time.run(scenario())


def test_after_three_failures_it_is_left_alone_until_the_network_changes() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        for number in range(FAILURES + 2):
            await bench.attempt()
            assert bool(bench.guessed()) is (number < FAILURES)
            bench.prediction.attempt_failed(bench.peer)
        assert bench.prediction.tries(bench.peer).failed == FAILURES
        assert len(bench.opened) == 2 * FAILURES
        bench.network += 1
        assert bench.prediction.tries(bench.peer).failed == 0
        await bench.attempt()
        assert len(bench.opened) == 2 * FAILURES + 2

    virtual_time.run(scenario())


def test_an_attempt_of_which_the_peer_was_told_nothing_is_no_failure() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        bench.peer.endpoint = None
        await bench.attempt()
        bench.prediction.attempt_failed(bench.peer)
        assert bench.prediction.tries(bench.peer).failed == 0 and bench.told == []

    virtual_time.run(scenario())


def test_what_led_to_a_path_is_known_on_both_sides() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        await bench.attempt()
        bench.peer.endpoint = HOME
        assert not bench.prediction.led_to(bench.peer), "the peer knew of no port"
        assert bench.guessed() and bench.prediction.led_to(bench.peer)
        bench.peer.endpoint = bench.guessed()[0]
        assert not bench.prediction.led_to(bench.peer)
        bench.connector.predicted = frozenset(bench.guessed())
        assert bench.prediction.led_to(bench.peer)
        bench.prediction.forget(bench.peer)
        assert bench.guessed() == []

    virtual_time.run(scenario())


def test_a_machine_without_sockets_or_a_budget_that_is_used_up_end_nothing() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        bench.may_probe = False
        await bench.prediction.attempt_begins(bench.peer)
        await asyncio.sleep(1)
        assert bench.sources == []
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        bench.refused = True
        await bench.attempt()
        assert bench.guessed() == [] == bench.told

    virtual_time.run(scenario())


def test_a_server_that_lies_names_no_other_address() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        assert bench.order is not None
        elsewhere = tuple(Endpoint("198.18.55.5", seen.port) for seen in bench.order.seen)
        bench.prediction._surroundings.ports_in_order = replace(bench.order, seen=elsewhere)
        await bench.attempt()
        assert bench.guessed() == [] == bench.told

    virtual_time.run(scenario())


def test_dead_servers_tell_nothing_and_the_ports_are_closed() -> None:
    async def scenario() -> None:
        bench = Bench(IN_ORDER)
        await bench.surveyed()
        assert bench.order is not None
        gone = replace(bench.order, witness=Endpoint("198.18.200.1", 4690))
        bench.prediction._surroundings.ports_in_order = gone
        await bench.attempt()
        await asyncio.sleep(5)
        assert bench.guessed() == [] and all(port.stun.transactions == 0 for port in bench.opened)
        assert all(task.done() for task in bench.tasks)

    virtual_time.run(scenario())


def test_no_more_ports_are_named_than_fit_into_a_signal() -> None:
    async def scenario() -> None:
        bench = Bench(replace(IN_ORDER, expiry_s=1))
        await bench.surveyed()
        for _ in range(MAX_GUESSES + 4):
            await bench.attempt()
            await asyncio.sleep(1)
        assert len(bench.guessed()) == MAX_GUESSES and bench.sources[-1] == bench.guessed()[0]

    virtual_time.run(scenario())
