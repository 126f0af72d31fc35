"""ICE over the shared port, on loopback."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from aioice import stun

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError, UsageError
from dhtvpn.nat import check_budget, ice_checks, stun_transaction
from dhtvpn.nat.candidates import MAX_REMOTE_CANDIDATES, CandidateKind
from dhtvpn.nat.checked_pairs import PairResult
from dhtvpn.nat.ice import IceAgent
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_messages import is_authentic, mapped_endpoint, parse

V4 = "127.0.0.1"
HOSTS = [V4, "::1"]
DEADLINE_S = 10


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is a counter, not an event
            await asyncio.sleep(0.001)


def at(port: UdpPort, *hosts: str) -> list[tuple[Endpoint, str]]:
    return [(Endpoint(host, port.port), "HOST") for host in hosts or HOSTS]


async def close(*agents: IceAgent) -> None:
    for agent in agents:
        await agent.close()
    assert len(asyncio.all_tasks()) == 1, "a task is left"


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["::1"], HOSTS])
async def test_two_sides_nominate_the_same_pair(open_port, credentials, hosts) -> None:
    left_port, right_port = await open_port(), await open_port()
    mine = credentials()
    left = IceAgent(left_port, mine, at(left_port, *hosts), at(right_port, *hosts))
    right = IceAgent(right_port, mine.mirrored(), at(right_port, *hosts), at(left_port, *hosts))
    started = time.perf_counter()
    to_right, to_left = await asyncio.gather(left.connect(DEADLINE_S), right.connect(DEADLINE_S))
    elapsed = time.perf_counter() - started
    assert (to_right.host, to_right.port) == (to_left.host, right_port.port)
    assert to_left.port == left_port.port
    assert left.selected == to_right
    assert left.selected_kind is CandidateKind.HOST
    assert elapsed < 1, "measured: 1 to 2 ms"
    await close(left, right)
    assert left_port.stun.agents == left_port.stun.transactions == 0


async def test_where_an_authentic_check_comes_from_is_told_and_what_the_tunnel_proves_is_reported(
    open_port, credentials
) -> None:
    left_port, right_port, stranger = await open_port(), await open_port(), await open_port()
    mine = credentials()
    heard: list[Endpoint] = []
    left = IceAgent(left_port, mine, at(left_port, V4), [], heard=heard.append)
    right = IceAgent(right_port, mine.mirrored(), at(right_port, V4), at(left_port, V4))
    forged = replace(mine.mirrored(), peer_password="another" * 4)
    liar = IceAgent(stranger, forged, at(stranger, V4), at(left_port, V4))
    searching = [asyncio.ensure_future(agent.connect(DEADLINE_S)) for agent in (right, liar)]
    await until(lambda: bool(heard))
    assert {endpoint.port for endpoint in heard} == {right_port.port}, "not the one without the password"
    proven = Endpoint(V4, left_port.port)
    right.proven(proven)
    (pair,) = [pair for pair in right.pairs() if pair.nominated]
    assert pair.remote == proven and pair.result is PairResult.SUCCEEDED
    for task in searching:
        task.cancel()
    await asyncio.gather(*searching, return_exceptions=True)
    await close(left, right, liar)


async def test_twenty_peers_through_one_port(open_port, credentials) -> None:
    hub = await open_port()
    agents: list[IceAgent] = []
    expected = []
    for number in range(20):
        spoke = await open_port()
        mine = credentials(number)
        agents.append(IceAgent(hub, mine, at(hub), at(spoke)))
        agents.append(IceAgent(spoke, mine.mirrored(), at(spoke), at(hub)))
        expected += [spoke.port, hub.port]
    selected = await asyncio.gather(*(agent.connect(DEADLINE_S) for agent in agents))
    assert [endpoint.port for endpoint in selected] == expected
    await close(*agents)


@pytest.mark.parametrize("early_controls", [True, False])
async def test_a_late_start_is_met_at_once(open_port, credentials, monkeypatch, early_controls) -> None:
    # No retransmission helps: only the check that the late side's check triggers.
    monkeypatch.setattr(stun_transaction, "RTO_S", 60.0)
    early_port, late_port = await open_port(), await open_port()
    mine = credentials() if early_controls else credentials().mirrored()
    early = IceAgent(early_port, mine, at(early_port), at(late_port))
    connecting = asyncio.create_task(early.connect(DEADLINE_S))
    await until(lambda: late_port.drops.as_dict().get("stun.ufrag") == len(HOSTS))
    late = IceAgent(late_port, mine.mirrored(), at(late_port), at(early_port))
    started = time.perf_counter()
    await asyncio.gather(connecting, late.connect(DEADLINE_S))
    assert time.perf_counter() - started < 1
    await close(early, late)


async def test_a_peer_that_answers_before_it_connects_is_met(open_port, credentials) -> None:
    left_port, right_port = await open_port(), await open_port()
    mine = credentials()
    left = IceAgent(left_port, mine, at(left_port), at(right_port))
    right = IceAgent(right_port, mine.mirrored(), at(right_port), [])
    assert (await left.connect(DEADLINE_S)).port == right_port.port
    assert (await right.connect(DEADLINE_S)).port == left_port.port
    assert right.selected_kind is CandidateKind.PEER_REFLEXIVE
    await close(left, right)


async def test_checks_that_timed_out_are_made_afresh(open_port, credentials, monkeypatch) -> None:
    monkeypatch.setattr(ice_checks, "CHECK_TIMEOUT_S", 0.01)
    early_port, late_port = await open_port(), await open_port()
    mine = credentials()
    early = IceAgent(early_port, mine, at(early_port), at(late_port))
    connecting = asyncio.create_task(early.connect(DEADLINE_S))
    await until(lambda: late_port.drops.as_dict().get("stun.ufrag", 0) > len(HOSTS))
    late = IceAgent(late_port, mine.mirrored(), at(late_port), [])
    assert (await connecting).port == late_port.port
    await close(early, late)


async def test_a_pair_that_fails_its_nomination_gives_the_turn_to_another(
    open_port, credentials, monkeypatch
) -> None:
    monkeypatch.setattr(ice_checks, "NOMINATION_TIMEOUT_S", 0.02)
    left_port, right_port = await open_port(), await open_port()
    mine = credentials()
    left = IceAgent(left_port, mine, at(left_port), at(right_port))
    right = IceAgent(right_port, mine.mirrored(), at(right_port), at(left_port))
    answer = right._connection.handle_request

    def deaf_to_ipv6_nominations(message, source) -> None:
        if not (source.is_ipv6 and "USE-CANDIDATE" in message.attributes):
            answer(message, source)

    right_port.stun.remove_agent(mine.peer_ufrag)
    right_port.stun.add_agent(mine.peer_ufrag, deaf_to_ipv6_nominations)
    selected = await asyncio.gather(left.connect(DEADLINE_S), right.connect(DEADLINE_S))
    assert [endpoint.host for endpoint in selected] == ["127.0.0.1", "127.0.0.1"]
    await close(left, right)


async def test_both_controlling_settle_it(open_port, credentials) -> None:
    left_port, right_port = await open_port(), await open_port()
    mine = credentials()
    theirs = mine.mirrored()
    object.__setattr__(theirs, "controlling", True)
    left = IceAgent(left_port, mine, at(left_port), at(right_port))
    right = IceAgent(right_port, theirs, at(right_port), at(left_port))
    selected = await asyncio.gather(left.connect(DEADLINE_S), right.connect(DEADLINE_S))
    assert [endpoint.port for endpoint in selected] == [right_port.port, left_port.port]
    await close(left, right)


async def test_nobody_there_times_out_and_connect_may_be_called_again(open_port, credentials) -> None:
    left_port, right_port = await open_port(), await open_port()
    mine = credentials()
    left = IceAgent(left_port, mine, at(left_port), at(right_port))
    for _ in range(2):
        with pytest.raises(TimedOutError, match="no direct path"):
            await left.connect(0.02)
        assert left_port.stun.transactions == 0
        assert left.selected is None
        assert left.selected_kind is None
    right = IceAgent(right_port, mine.mirrored(), at(right_port), [])
    assert (await left.connect(DEADLINE_S)).port == right_port.port
    await close(left, right)


async def test_a_candidate_that_comes_later_is_checked(open_port, credentials) -> None:
    left_port, right_port = await open_port(), await open_port()
    mine = credentials()
    left = IceAgent(left_port, mine, at(left_port), [])
    right = IceAgent(right_port, mine.mirrored(), at(right_port), [])
    connecting = asyncio.create_task(left.connect(DEADLINE_S))
    await asyncio.sleep(0)
    left.add_remote(Endpoint("::1", right_port.port), "MAPPED")
    assert await connecting == Endpoint("::1", right_port.port)
    assert left.selected_kind is CandidateKind.MAPPED
    await close(left, right)


async def test_the_agent_answers_until_it_is_closed(open_port, credentials) -> None:
    left_port, right_port = await open_port(), await open_port()
    mine = credentials()
    left = IceAgent(left_port, mine, at(left_port), at(right_port))
    right = IceAgent(right_port, mine.mirrored(), at(right_port), at(left_port))
    await asyncio.gather(left.connect(DEADLINE_S), right.connect(DEADLINE_S))
    await right.close()
    again = IceAgent(right_port, mine.mirrored(), at(right_port), at(left_port))
    assert left_port.stun.agents == 1
    connecting = asyncio.create_task(again.connect(DEADLINE_S))
    await until(lambda: any(p.state.name == "SUCCEEDED" for p in again._connection._check_list))
    await left.close()
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    await close(again)


async def test_a_wrong_password_gets_silence(open_port, credentials) -> None:
    left_port, right_port = await open_port(), await open_port()
    mine = credentials()
    theirs = mine.mirrored()
    object.__setattr__(theirs, "peer_password", "w" * 22)
    left = IceAgent(left_port, mine, at(left_port), [])
    right = IceAgent(right_port, theirs, at(right_port), at(left_port))
    with pytest.raises(TimedOutError):
        await right.connect(0.05)
    assert left_port.drops.as_dict() == {"ice.integrity": len(HOSTS)}
    assert right_port.drops.as_dict() == {}, "not even an error came back"
    await close(left, right)


async def test_closing_ends_a_connect_and_cancelling_leaves_nothing(open_port, credentials) -> None:
    left_port, right_port = await open_port(), await open_port()
    left = IceAgent(left_port, credentials(), at(left_port), at(right_port))
    connecting = asyncio.create_task(left.connect(DEADLINE_S))
    await until(lambda: left_port.stun.transactions == len(HOSTS))
    await left.close()
    await left.close()
    with pytest.raises(TimedOutError, match="closed"):
        await connecting
    cancelled = IceAgent(left_port, credentials(), at(left_port), at(right_port))
    connecting = asyncio.create_task(cancelled.connect(DEADLINE_S))
    await until(lambda: left_port.stun.transactions == len(HOSTS))
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert left_port.stun.transactions == 0
    await close(cancelled)


async def test_candidates_of_a_peer_are_filtered_and_capped(open_port, credentials) -> None:
    port = await open_port()
    bad = [(Endpoint("224.0.0.1", 9), "HOST"), (Endpoint("fe80::1", 9), "HOST"), (Endpoint("::", 9), "HOST")]
    many = [(Endpoint("127.0.0.1", 1000 + n), "HOST") for n in range(MAX_REMOTE_CANDIDATES + 5)]
    agent = IceAgent(port, credentials(), at(port), bad + many + many[:3])
    assert len(agent._connection._check_list) == MAX_REMOTE_CANDIDATES
    assert port.drops.as_dict() == {"ice.unusable_candidate": 3, "ice.candidates": 5}
    await close(agent)


async def test_loopback_of_a_peer_is_not_for_us(open_port, credentials) -> None:
    port = await open_port()
    agent = IceAgent(port, credentials(), [(Endpoint("192.0.2.9", port.port), "HOST")], at(port))
    assert agent._connection._check_list == []
    await close(agent)


async def test_pairs_that_a_peer_can_make_are_capped(open_port, credentials, monkeypatch) -> None:
    monkeypatch.setattr(ice_checks, "MAX_PAIRS", 3)
    left_port = await open_port()
    mine = credentials()
    left = IceAgent(left_port, mine, at(left_port), [])
    left._connection.begin()
    for _ in range(5):
        right_port = await open_port()
        right = IceAgent(right_port, mine.mirrored(), at(right_port), at(left_port, "127.0.0.1"))
        connecting = asyncio.create_task(right.connect(DEADLINE_S))
        await until(
            lambda agent=right: any(p.state.name == "SUCCEEDED" for p in agent._connection._check_list)
        )
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await right.close()
        left._connection._check_list_done = False
    assert len(left._connection._check_list) <= 3
    await close(left)


async def test_one_agent_per_credentials(open_port, credentials) -> None:
    port = await open_port()
    agent = IceAgent(port, credentials(), at(port), [])
    with pytest.raises(UsageError):
        IceAgent(port, credentials(), at(port), [])
    assert "password" not in repr(agent)
    await close(agent)


async def test_a_storm_of_garbage_does_not_hinder_a_connection(open_port, credentials) -> None:
    left_port, right_port = await open_port(), await open_port()
    noise = await open_port()
    mine = credentials()
    left = IceAgent(left_port, mine, at(left_port), at(right_port))
    right = IceAgent(right_port, mine.mirrored(), at(right_port), at(left_port))
    for number in range(200):
        cookie = bytes.fromhex("2112a442")
        noise.send(bytes([number & 3, number, 0, number]) + cookie + bytes(number), at(left_port)[0][0])
    await asyncio.gather(left.connect(DEADLINE_S), right.connect(DEADLINE_S))
    assert left_port.drops.total() > 150
    await close(left, right)


async def test_a_record_that_names_a_victim_gets_it_a_handful_of_checks(
    open_port, credentials, monkeypatch
) -> None:
    monkeypatch.setattr(stun_transaction, "RTO_S", 0.001)
    monkeypatch.setattr(stun_transaction, "MAX_RTO_S", 0.001)
    port = await open_port()
    sent: list[Endpoint] = []
    monkeypatch.setattr(port, "send", lambda data, endpoint: sent.append(endpoint))
    victim = [(Endpoint("127.0.0.9", number), "REFLEXIVE") for number in range(2000, 2100)]
    agent = IceAgent(port, credentials(), at(port), victim)
    with pytest.raises(TimedOutError):
        await agent.connect(0.3)
    assert 0 < len(sent) <= check_budget.ADDRESS_BURST + 1
    assert port.drops.as_dict()["ice.budget"] > 0
    await close(agent)


async def test_every_pair_is_reported_with_its_result(open_port, credentials) -> None:
    left_port, right_port, silent = await open_port(), await open_port(), await open_port()
    mine = credentials()
    unusable = (Endpoint("224.0.0.1", 9), "REFLEXIVE")
    told = [*at(right_port, "127.0.0.1"), *at(silent, "127.0.0.1"), unusable]
    left = IceAgent(left_port, mine, at(left_port, "127.0.0.1"), told)
    right = IceAgent(right_port, mine.mirrored(), at(right_port, "127.0.0.1"), at(left_port, "127.0.0.1"))
    assert [pair.result for pair in left.pairs()] == [PairResult.NOT_TRIED] * 3
    await asyncio.gather(left.connect(DEADLINE_S), right.connect(DEADLINE_S))
    by_port = {pair.remote.port: pair for pair in left.pairs()}
    good = by_port[right_port.port]
    assert (good.result, good.nominated, good.remote_kind) == (PairResult.SUCCEEDED, True, CandidateKind.HOST)
    assert good.requests >= 1 and good.local is not None and good.local.port == left_port.port
    assert by_port[silent.port].result in (PairResult.NO_ANSWER, PairResult.NOT_TRIED)
    assert (by_port[9].result, by_port[9].reason) == (PairResult.NOT_TRIED, "cannot be reached from here")
    await close(left, right)


async def test_a_pair_whose_budget_is_used_up_says_so(open_port, credentials) -> None:
    port, silent = await open_port(), await open_port()
    target = Endpoint("127.0.0.1", silent.port)
    while port.stun.check_budget.take(target, asyncio.get_running_loop().time()):
        pass
    agent = IceAgent(port, credentials(), at(port, "127.0.0.1"), [(target, "HOST")])
    with pytest.raises(TimedOutError):
        await agent.connect(0.05)
    (pair,) = agent.pairs()
    assert (pair.result, pair.reason, pair.requests) == (PairResult.NOT_TRIED, "budget", 0)
    await close(agent)


async def test_a_neighbour_is_not_told_on_which_interface_of_ours_it_is(open_port, credentials) -> None:
    port = await open_port()
    mine = credentials()
    near = Endpoint("fe80:3::7", 9)
    agent = IceAgent(port, mine, at(port, "::1"), [(near, "HOST")])
    sent: list[tuple[bytes, Endpoint]] = []
    port.answer = lambda data, endpoint: sent.append((data, endpoint))
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.attributes["USERNAME"] = f"{mine.own_ufrag}:{mine.peer_ufrag}"
    request.attributes["PRIORITY"] = 1
    request.attributes["ICE-CONTROLLED" if mine.controlling else "ICE-CONTROLLING"] = 1
    request.add_message_integrity(mine.own_password.encode())
    agent._connection.handle_request(parse(bytes(request)), near)
    ((data, destination),) = sent
    answer = parse(data)
    assert destination == near and mapped_endpoint(answer) == near.without_zone()
    assert is_authentic(answer, mine.own_password) and "FINGERPRINT" in answer.attributes
    await close(agent)
