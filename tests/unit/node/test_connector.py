"""The connector: knocks and ICE side by side, one attempt at a time, and an end to each."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from peers_in_table import add_peer
from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError, UsageError
from dhtvpn.membership.pairwise import PairCredentials, ice_credentials
from dhtvpn.mesh.peers import Peer, PeerState, PeerTable
from dhtvpn.mesh.relayed import relayed
from dhtvpn.nat.candidates import CandidateKind as IceKind
from dhtvpn.nat.checked_pairs import CheckedPair, PairResult
from dhtvpn.node import connector as module
from dhtvpn.node.connector import Connector
from dhtvpn.node.path_facts import Why
from dhtvpn.node.turns import HOLD_S, Turns
from dhtvpn.records.record import Candidate, CandidateKind

HERE, THERE, ELSEWHERE = Endpoint("198.18.1.1", 1), Endpoint("198.18.2.2", 2), Endpoint("198.18.3.3", 3)
NONCE, NEXT_NONCE = bytes(16), bytes([1]) * 16
CANDIDATES = (Candidate(THERE, CandidateKind.HOST),)


def credentials(controlling: bool, nonce: bytes = NONCE) -> PairCredentials:
    keys = (bytes(32), bytes([9]) * 32) if controlling else (bytes([9]) * 32, bytes(32))
    return ice_credentials(bytes([7]) * 32, keys[0], NONCE, keys[1], nonce)


class FakeTunnels:
    """Records what was asked of it, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answered = False

    def knock(self, peer: Peer, endpoints: list[Endpoint]) -> None:
        self.asked.append(("knock", tuple(endpoints)))

    def aim(self, peer: Peer, endpoint: Endpoint) -> None:
        peer.endpoint = endpoint
        self.asked.append(("aim", endpoint))

    def initiate(self, peer: Peer) -> None:
        self.asked.append(("initiate", peer.endpoint))

    def answered_lately(self, peer: Peer) -> bool:
        return self.answered


class FakeAgent:
    """Finds ``path`` after ``delay_s``, or never."""

    heard: Callable[[Endpoint], None]

    def __init__(self, path: Endpoint | None, delay_s: float) -> None:
        self.path, self.delay_s, self.closed = path, delay_s, False
        self.deadline_s = 0.0
        self.proven_at: Endpoint | None = None

    def proven(self, endpoint: Endpoint) -> None:
        self.proven_at = endpoint

    async def connect(self, deadline_s: float) -> Endpoint:
        self.deadline_s = deadline_s
        if self.path is None or self.delay_s > deadline_s:
            await asyncio.sleep(deadline_s)
            raise TimedOutError("no direct path")
        await asyncio.sleep(self.delay_s)
        return self.path

    def pairs(self) -> list[CheckedPair]:
        if self.path is None:
            return [CheckedPair(HERE, THERE, IceKind.HOST, PairResult.NO_ANSWER, requests=9)]
        return [CheckedPair(HERE, self.path, IceKind.HOST, PairResult.SUCCEEDED, nominated=True, requests=1)]

    def add_remote(self, endpoint: Endpoint, kind: CandidateKind) -> None:
        self.path = endpoint

    async def close(self) -> None:
        self.closed = True


class Bench:
    """One connector on fakes."""

    def __init__(
        self,
        path: Endpoint | None = THERE,
        delay_s: float = 0.1,
        turns: Turns | None = None,
    ) -> None:
        peer = add_peer(PeerTable(), 9)
        self.peer = peer
        self.tunnels = FakeTunnels()
        self.agents: list[FakeAgent] = []
        self.remotes: list[Sequence[Candidate]] = []
        """Of each agent."""
        self.began = 0
        self.states: list[PeerState] = []
        self.doubted: list[Peer] = []
        self.path, self.delay_s = path, delay_s
        self.refuse_agents = False
        self.may_probe = True
        self.direct: list[Endpoint] = []
        self.connector = Connector(
            peer,
            tunnels=self.tunnels,  # type: ignore[arg-type]
            make_agent=self._make_agent,
            own_candidates=lambda: (Candidate(HERE, CandidateKind.HOST),),
            changed=lambda peer: self.states.append(peer.state),
            turns=turns or Turns(),
            ways_by_relay=self._ways,
            doubt=self.doubted.append,
            attempt_failed=lambda _, number: self.failed.append(number),
            may_probe=lambda _: self.may_probe,
            heard_direct=lambda _, endpoint: self.direct.append(endpoint),
        )
        self.failed: list[int] = []
        self.ways: list[Endpoint] = []

    async def _ways(self, peer: Peer) -> list[Endpoint]:
        return self.ways

    def _make_agent(self, *arguments: Any) -> FakeAgent:
        if self.refuse_agents:
            raise UsageError("more agents than the port takes")
        assert all(agent.closed for agent in self.agents), "two agents would answer to the same credentials"
        self.agents.append(FakeAgent(self.path, self.delay_s))
        self.remotes.append(arguments[2])
        self.agents[-1].heard = arguments[3]
        return self.agents[-1]

    def asked(self, what: str) -> list[Any]:
        return [argument for name, argument in self.tunnels.asked if name == what]


def scenario(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in virtual time."""

    def wrapped() -> None:
        run(test())

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


@scenario
async def test_the_controlling_side_initiates_on_the_nominated_path() -> None:
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(controlling=True), CANDIDATES)
    await asyncio.sleep(0.2)
    assert bench.tunnels.asked == [("aim", THERE), ("initiate", THERE)]
    bench.connector.session_up()
    assert bench.peer.state is PeerState.CONNECTED
    await asyncio.sleep(module.LINGER_S + 1)
    assert bench.agents[0].closed, "the agent lingers for the other side, then goes"
    assert bench.connector.known_endpoints == [THERE]
    await bench.connector.close()


@scenario
async def test_the_controlled_side_waits_for_the_handshake() -> None:
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(controlling=False), CANDIDATES)
    await asyncio.sleep(0.2)
    assert bench.tunnels.asked == [("aim", THERE)]
    await bench.connector.close()
    assert bench.agents[0].closed


@scenario
async def test_knocking_needs_no_record_and_stops_with_the_session() -> None:
    bench = Bench()
    bench.connector.known_endpoints = [THERE, ELSEWHERE]
    bench.connector.start()
    await asyncio.sleep(2.5)
    assert bench.asked("knock") == [(THERE, ELSEWHERE)] * 3
    assert not bench.agents
    bench.peer.endpoint = ELSEWHERE
    bench.connector.session_up()
    await asyncio.sleep(60)
    assert len(bench.asked("knock")) == 3
    assert bench.connector.known_endpoints == [ELSEWHERE, THERE]
    await bench.connector.close()


@scenario
async def test_a_restarted_peer_that_knocked_needs_no_ice() -> None:
    bench = Bench()
    bench.connector.known_endpoints = [THERE]
    bench.connector.session_up()
    bench.peer.session_nonce = NEXT_NONCE
    bench.connector.record_arrived(NEXT_NONCE, credentials(True, NEXT_NONCE), CANDIDATES)
    await asyncio.sleep(30)
    assert not bench.agents and not bench.asked("knock")
    await bench.connector.close()


@scenario
async def test_a_new_run_of_a_connected_peer_starts_an_attempt() -> None:
    bench = Bench()
    bench.connector.session_up()
    bench.peer.session_nonce = NONCE
    bench.connector.record_arrived(NEXT_NONCE, credentials(True, NEXT_NONCE), CANDIDATES)
    await asyncio.sleep(1)
    assert len(bench.agents) == 1 and bench.asked("aim") == [THERE]
    await bench.connector.close()


@scenario
async def test_news_replace_a_running_attempt() -> None:
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    bench.path = ELSEWHERE
    more = (*CANDIDATES, Candidate(ELSEWHERE, CandidateKind.REFLEXIVE))
    bench.connector.record_arrived(NONCE, credentials(True), more)
    await asyncio.sleep(1)
    assert bench.agents[0].closed and bench.asked("aim") == [ELSEWHERE]
    bench.connector.record_arrived(NONCE, credentials(True), more)
    assert len(bench.agents) == 2, "the same record again is no news"
    await bench.connector.close()


@scenario
async def test_unreachable_is_said_in_time_and_trying_goes_on() -> None:
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(module.UNREACHABLE_AFTER_S + 2 * module.ICE_DEADLINE_S)
    assert bench.peer.state is PeerState.UNREACHABLE
    tries = len(bench.agents)
    bench.path = THERE
    await asyncio.sleep(2 * module.LONGEST_PAUSE_S)
    assert len(bench.agents) > tries and THERE in bench.asked("aim")
    bench.connector.session_up()
    assert bench.states == [PeerState.UNREACHABLE, PeerState.CONNECTED]
    await bench.connector.close()


@scenario
async def test_a_lost_path_and_a_check_by_the_peer_both_start_again() -> None:
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.2)
    bench.connector.session_up()
    await asyncio.sleep(60)
    assert len(bench.agents) == 1
    bench.connector.path_lost()
    assert bench.peer.state is PeerState.CONNECTING
    await asyncio.sleep(1)
    bench.connector.session_up()
    await asyncio.sleep(60)
    assert len(bench.agents) == 2
    bench.connector.checked_by_peer()
    await asyncio.sleep(1)
    assert len(bench.agents) == 3
    await bench.connector.close()


@scenario
async def test_a_port_with_too_many_agents_is_tried_again_later() -> None:
    bench = Bench()
    bench.refuse_agents = True
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(5)
    assert not bench.tunnels.asked
    bench.refuse_agents = False
    await asyncio.sleep(10)
    assert THERE in bench.asked("aim")
    await bench.connector.close()


@scenario
async def test_attempts_take_turns() -> None:
    turns = Turns(at_once=1)
    first, second, third = Bench(path=None, turns=turns), Bench(turns=turns), Bench(turns=turns)
    for bench in (first, second, third):
        bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(HOLD_S - 0.1)
    assert first.agents and not second.agents and not third.agents
    third.connector.wanted()
    await asyncio.sleep(0.01)
    assert third.agents and not second.agents, "who is waited for takes no turn"
    await asyncio.sleep(0.2)
    assert second.agents, "one that takes long does not keep the others waiting"
    for bench in (first, second, third):
        await bench.connector.close()


@scenario
async def test_a_peer_that_sends_checks_gets_its_turn() -> None:
    turns = Turns(at_once=1)
    first, second = Bench(path=None, turns=turns), Bench(turns=turns)
    for bench in (first, second):
        bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.1)
    second.connector.checked_by_peer()
    await asyncio.sleep(0.01)
    assert second.agents
    for bench in (first, second):
        await bench.connector.close()


@scenario
async def test_a_peer_that_left_is_not_sought() -> None:
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    bench.connector.gone()
    await asyncio.sleep(300)
    assert bench.peer.state is PeerState.UNREACHABLE and len(bench.agents) == 1 and bench.agents[0].closed
    await bench.connector.close()


@scenario
async def test_a_connected_peer_that_has_moved_is_met_where_it_says_that_it_is() -> None:
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    bench.connector.session_up()
    bench.peer.session_nonce = NONCE
    moved = (Candidate(ELSEWHERE, CandidateKind.REFLEXIVE),)
    for _ in range(5):  # a peer that says something else all the time
        bench.connector.record_arrived(NONCE, credentials(True), moved)
        bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
        bench.peer.endpoint = HERE
    assert bench.asked("knock") == [(ELSEWHERE,)]
    assert len(bench.doubted) == 10 and len(bench.agents) == 1
    await bench.connector.close()


@scenario
async def test_more_candidates_of_a_peer_that_is_still_there_are_not_knocked_at() -> None:
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    bench.connector.session_up()
    bench.peer.session_nonce = NONCE
    bench.connector.record_arrived(
        NONCE, credentials(True), (*CANDIDATES, Candidate(ELSEWHERE, CandidateKind.MAPPED))
    )
    assert not bench.asked("knock") and bench.doubted == [bench.peer]
    await bench.connector.close()


@scenario
async def test_a_lost_path_is_sought_without_long_pauses_for_minutes() -> None:
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    bench.connector.known_endpoints = [THERE]
    bench.connector.path_lost()
    await asyncio.sleep(module.PERSISTENT_S)
    assert len(bench.asked("knock")) > 0.85 * module.PERSISTENT_S / module.KNOCK_INTERVAL_S
    await bench.connector.close()


@scenario
async def test_a_candidate_that_a_signal_tells_is_checked_in_the_attempt_that_runs() -> None:
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    bench.connector.candidates_told((Candidate(ELSEWHERE, CandidateKind.REFLEXIVE),))
    assert [agent.path for agent in bench.agents] == [ELSEWHERE]
    await bench.connector.close()


@scenario
async def test_a_predicted_port_is_checked_in_the_attempt_that_runs_or_in_the_next_one_only() -> None:
    predicted = (Candidate(ELSEWHERE, CandidateKind.PREDICTED),)
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    bench.connector.ports_predicted(predicted)
    assert bench.agents[0].path == ELSEWHERE
    await asyncio.sleep(module.ICE_DEADLINE_S - 0.9)
    bench.connector.ports_predicted(predicted)
    assert not bench.connector.running
    await asyncio.sleep(40)
    remotes = [[candidate.endpoint for candidate in remote] for remote in bench.remotes]
    assert remotes[:3] == [[THERE], [ELSEWHERE, THERE], [THERE]]
    assert bench.connector.candidates == CANDIDATES and bench.connector.predicted == {ELSEWHERE}
    await bench.connector.close()


@scenario
async def test_what_comes_first_in_an_attempt_is_over_before_a_datagram_leaves() -> None:
    bench = Bench()
    bench.connector.known_endpoints = [THERE]

    async def first(peer: Peer) -> None:
        await asyncio.sleep(0.1)
        assert bench.tunnels.asked == [] and bench.agents == []
        bench.began += 1

    bench.connector._attempt_begins = first
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    assert bench.began == 1 and bench.asked("knock") and bench.agents
    await bench.connector.close()


@scenario
async def test_a_member_whose_record_comes_back_is_sought_though_nothing_in_it_is_new() -> None:
    """It slept until its record had expired."""
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    bench.connector.session_up()
    bench.connector.gone()
    await asyncio.sleep(3600)
    agents = len(bench.agents)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1)
    assert len(bench.agents) == agents + 1
    await bench.connector.close()


@scenario
async def test_the_handshake_follows_the_first_check_of_the_peer_at_once() -> None:
    """Whichever side hears it, without waiting for answers to its own checks."""
    for controlling in (True, False):
        bench = Bench(path=None)
        bench.connector.record_arrived(NONCE, credentials(controlling), CANDIDATES)
        await asyncio.sleep(0.05)
        for source in (ELSEWHERE, THERE, ELSEWHERE):
            bench.agents[0].heard(source)
        assert bench.asked("knock") == [(ELSEWHERE,)], "once, at where the first one came from"
        bench.peer.endpoint = ELSEWHERE
        bench.connector.session_up()
        await asyncio.sleep(0.1)
        assert bench.agents[0].proven_at == ELSEWHERE
        bench.agents[0].heard(THERE)
        await asyncio.sleep(60)
        assert bench.asked("knock") == [(ELSEWHERE,)] and len(bench.agents) == 1
        await bench.connector.close()


@scenario
async def test_a_check_that_is_heard_after_the_peers_handshake_starts_no_other() -> None:
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.05)
    bench.tunnels.answered = True
    bench.agents[0].heard(THERE)
    assert not bench.asked("knock")
    await bench.connector.close()


@scenario
async def test_where_a_check_claims_to_come_from_gets_no_more_than_the_budget_of_checks() -> None:
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.05)
    bench.may_probe = False
    bench.agents[0].heard(ELSEWHERE)
    bench.peer.endpoint = BEYOND
    bench.agents[0].heard(ELSEWHERE)
    assert not bench.tunnels.asked and not bench.direct
    bench.may_probe = True
    bench.agents[0].heard(ELSEWHERE)
    assert not bench.tunnels.asked and bench.direct == [ELSEWHERE], "a relayed peer has a session already"
    await bench.connector.close()


@scenario
async def test_a_handshake_that_follows_a_check_is_not_voided_by_one_through_a_relay() -> None:
    bench = Bench(path=None)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    bench.connector.wanted()
    await asyncio.sleep(module.RELAY_AFTER_S - 0.01)
    bench.agents[0].heard(THERE)
    await asyncio.sleep(module.GREETING_S - 0.01)
    assert bench.asked("knock") == [(THERE,)]
    await asyncio.sleep(0.02)
    assert bench.asked("knock") == [(THERE,), (BEYOND,)], "it had its time"
    await bench.connector.close()


BEYOND = relayed(1, 1)


@scenario
async def test_a_relay_is_used_where_a_direct_path_takes_its_time_and_given_up_for_it() -> None:
    bench = Bench(delay_s=3.0)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    bench.connector.wanted()
    await asyncio.sleep(module.RELAY_AFTER_S + 0.1)
    assert bench.asked("knock") == [(BEYOND,)]
    bench.peer.endpoint = BEYOND  # the answer came by the relay
    bench.connector.session_up()
    assert bench.peer.path == "relayed" and bench.connector.known_endpoints == []
    await asyncio.sleep(3.0)
    assert bench.direct == [THERE] and bench.asked("aim") == []
    bench.peer.endpoint = THERE  # the ping came back
    bench.connector.session_up()
    assert bench.peer.path == "direct" and bench.connector.known_endpoints == [THERE]
    await asyncio.sleep(60)
    assert len(bench.agents) == 1 and bench.asked("knock") == [(BEYOND,)]
    await bench.connector.close()


@scenario
async def test_while_no_packet_waits_a_direct_path_may_take_longer() -> None:
    bench = Bench(delay_s=2.0)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(2.1)
    bench.connector.session_up()
    assert bench.asked("knock") == [] and bench.peer.path == "direct"
    slow = Bench(path=None)
    slow.ways = [BEYOND]
    slow.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(module.RELAY_UNWANTED_S - 0.1)
    assert slow.asked("knock") == []
    await asyncio.sleep(0.2)
    assert slow.asked("knock") == [(BEYOND,)]
    for each in (bench, slow):
        await each.connector.close()


@scenario
async def test_a_packet_that_comes_later_has_the_relay_at_once() -> None:
    bench = Bench(path=None)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(1.5)
    assert bench.asked("knock") == []
    bench.connector.wanted()
    await asyncio.sleep(0.01)
    assert bench.asked("knock") == [(BEYOND,)]
    await bench.connector.close()


@scenario
async def test_where_no_family_is_common_a_relay_is_used_at_once() -> None:
    bench = Bench(path=None)
    bench.ways = [BEYOND]
    six = (Candidate(Endpoint("2001:db8::7", 4690), CandidateKind.HOST),)
    bench.connector.record_arrived(NONCE, credentials(True), six)
    await asyncio.sleep(0.01)
    assert bench.asked("knock") == [(BEYOND,)]
    await bench.connector.close()


@scenario
async def test_a_relay_that_fails_while_a_direct_path_is_sought_is_replaced_at_once() -> None:
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.2)
    bench.connector.session_up()
    await asyncio.sleep(60)
    bench.path, bench.peer.endpoint = None, BEYOND
    bench.connector.fell_back()
    await asyncio.sleep(2)
    assert (BEYOND,) not in bench.asked("knock")
    bench.ways = [relayed(2, 1)]
    bench.connector.path_lost()
    await asyncio.sleep(0.01)
    assert (relayed(2, 1),) in bench.asked("knock")
    await bench.connector.close()


@scenario
async def test_a_quick_direct_path_needs_no_relay() -> None:
    bench = Bench(delay_s=0.1)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.2)
    bench.connector.session_up()
    await asyncio.sleep(5)
    assert bench.asked("knock") == []
    await bench.connector.close()


@pytest.mark.parametrize("controlling", [True, False])
def test_a_pair_without_an_answer_is_no_reason_to_leave_the_relay(controlling: bool) -> None:
    """The session is the same by every path, so a ping is all it takes, whatever the other side has done. One
    that gets no answer may have met a peer that has begun anew: the controlling side offers new keys."""

    async def scenario() -> None:
        bench = Bench(delay_s=1.0)
        bench.ways = [BEYOND]
        bench.connector.record_arrived(NONCE, credentials(controlling), CANDIDATES)
        await asyncio.sleep(0.6)
        bench.peer.endpoint = BEYOND
        bench.connector.session_up()
        await asyncio.sleep(1.0 + module.HANDSHAKE_DEADLINE_S)
        assert bench.direct == [THERE] * len(module.TRIALS_S) and bench.peer.path == "relayed"
        assert bench.asked("aim") == [] and ((THERE,) in bench.asked("knock")) == controlling
        await bench.connector.close()

    run(scenario())


@scenario
async def test_a_relay_that_comes_later_is_used_too() -> None:
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(3)
    assert bench.asked("knock") == []
    bench.ways = [BEYOND]
    await asyncio.sleep(module.NO_RELAY_S + 0.1)
    assert bench.asked("knock") == [(BEYOND,)]
    await bench.connector.close()


@scenario
async def test_a_signal_ends_the_pause() -> None:
    bench = Bench(path=None)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.6)
    bench.peer.endpoint = BEYOND
    bench.connector.session_up()
    await asyncio.sleep(600)
    before = len(bench.agents)
    bench.path = THERE
    for _ in range(20):
        bench.connector.candidates_told(CANDIDATES)
        await asyncio.sleep(module.LEAST_PAUSE_S / 10)
    await asyncio.sleep(12)
    assert before < len(bench.agents) <= before + 6
    assert THERE in bench.direct
    await bench.connector.close()


@scenario
async def test_a_relayed_peer_costs_few_attempts_in_an_hour() -> None:
    """Its keys are renewed every two minutes, which is no reason for another attempt."""
    bench = Bench(path=None)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.6)
    bench.peer.endpoint = BEYOND
    for _ in range(15):
        bench.connector.session_up()
        await asyncio.sleep(120)
    before = len(bench.agents)
    for _ in range(30):
        bench.connector.session_up()
        await asyncio.sleep(120)
    assert 3 <= len(bench.agents) - before <= 3600 / (module.RELAYED_PAUSE_S / 2)
    await bench.connector.close()


@scenario
async def test_attempts_of_a_relayed_peer_become_brief_until_there_is_news() -> None:
    bench = Bench(path=None)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.6)
    bench.peer.endpoint = BEYOND
    bench.connector.session_up()
    await asyncio.sleep(200)
    deadlines = [agent.deadline_s for agent in bench.agents]
    full = deadlines.index(module.LOOK_S)
    assert module.FULL_ATTEMPTS <= full <= module.FULL_ATTEMPTS + 1, (
        "the record was news in the first of them"
    )
    assert set(deadlines[:full]) == {module.ICE_DEADLINE_S} and set(deadlines[full:]) == {module.LOOK_S}
    bench.connector.candidates_told(CANDIDATES)
    await asyncio.sleep(module.LOOK_S + module.FIRST_PAUSE_S)
    assert bench.agents[-1].deadline_s == module.ICE_DEADLINE_S
    await bench.connector.close()


@scenario
async def test_another_relay_is_no_reason_to_seek_as_after_a_direct_path_was_lost() -> None:
    bench = Bench(path=None)
    bench.ways = [BEYOND]
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(0.6)
    bench.peer.endpoint = BEYOND
    bench.connector.session_up()
    await asyncio.sleep(600)
    before = len(bench.agents)
    bench.connector.fell_back()
    await asyncio.sleep(120)
    assert len(bench.agents) - before <= 2
    await bench.connector.close()


@scenario
async def test_attempts_of_a_peer_without_any_path_stay_as_long_as_they_were() -> None:
    bench = Bench(path=None)
    bench.connector.record_arrived(NONCE, credentials(True), CANDIDATES)
    await asyncio.sleep(300)
    assert {agent.deadline_s for agent in bench.agents} == {module.ICE_DEADLINE_S}
    await bench.connector.close()


@scenario
async def test_what_was_tried_is_kept_after_each_attempt() -> None:
    bench = Bench(path=None)
    assert bench.connector.pairs == () and bench.connector.checked_s is None
    bench.connector.record_arrived(NONCE, credentials(controlling=True), CANDIDATES)
    await asyncio.sleep(1)
    assert bench.connector.running and bench.connector.attempts == 1
    await asyncio.sleep(module.ICE_DEADLINE_S + module.RELAY_AFTER_S - 0.7)
    assert not bench.connector.running and bench.failed == [1]
    assert [pair.result for pair in bench.connector.pairs] == [PairResult.NO_ANSWER]
    assert bench.connector.checked_s is not None and bench.connector.checked_s < 2
    await asyncio.sleep(60)
    assert bench.failed == list(range(1, bench.connector.attempts)) and len(bench.failed) >= 3
    await bench.connector.close()


@scenario
async def test_who_has_found_the_path_is_known_while_it_is_made() -> None:
    bench = Bench()
    bench.connector.record_arrived(NONCE, credentials(controlling=True), CANDIDATES)
    await asyncio.sleep(0.2)
    assert bench.connector.found_by(THERE) is Why.CHECKS
    assert bench.connector.found_by(ELSEWHERE) is None
    bench.connector.session_up()
    await asyncio.sleep(1)
    assert bench.connector.found_by(THERE) is Why.KNOCK, "the attempt is over, and it is known from now on"
    assert not bench.failed
    await bench.connector.close()


@scenario
async def test_somebody_who_waits_ends_the_pause() -> None:
    bench = Bench(path=None)
    bench.connector.hurry()
    assert not bench.agents, "without a record there is nothing to try"
    bench.connector.record_arrived(NONCE, credentials(controlling=True), CANDIDATES)
    await asyncio.sleep(100)
    agents = len(bench.agents)
    while bench.connector.running:  # noqa: ASYNC110 - nothing tells that it ends
        await asyncio.sleep(0.1)
    bench.connector.hurry()
    await asyncio.sleep(1)
    assert bench.connector.running and len(bench.agents) == agents + 1
    bench.peer.endpoint = THERE
    bench.connector.session_up()
    await asyncio.sleep(5)
    bench.connector.hurry()
    await asyncio.sleep(5)
    assert len(bench.agents) == agents + 1, "a direct path is left alone"
    await bench.connector.close()


def test_our_link_local_addresses_are_ipv6_to_neighbours_only() -> None:
    bench = Bench()
    near = Candidate(Endpoint("fe80::1", 1), CandidateKind.HOST)
    here = Candidate(HERE, CandidateKind.HOST)
    bench.connector._own_candidates = lambda: (here, near)
    bench.connector._candidates = (Candidate(Endpoint("2001:db8::2", 2), CandidateKind.HOST),)
    assert bench.connector._local_candidates() == [here]
    bench.connector._candidates += (Candidate(Endpoint("fe80:3::2", 2), CandidateKind.HOST),)
    assert bench.connector._local_candidates() == [here, near]
