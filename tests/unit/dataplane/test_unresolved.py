"""Packets to an address that nobody holds yet: asked for once, held briefly, sent or answered."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from engines_in_memory import Pair, Side, ipv4, ipv6, keypair_a

from dhtvpn.dataplane import messages as m
from dhtvpn.dataplane import unresolved as module
from dhtvpn.dataplane.unresolved import HOLD_S, MAX_DESTINATIONS, MAX_PACKETS, REFUSED_S, Unresolved
from dhtvpn.endpoint import Endpoint
from dhtvpn.packet.ip import parse

NETWORKS = (ip_network("10.1.0.0/16"), ip_network("fd00::/64"))
STRANGER = "10.1.0.77"


@pytest.fixture
def side() -> Side:
    side = Pair.make().a
    side.engine.handle_command(m.Resolve(NETWORKS), 0.0)
    return side


def asked(side: Side) -> list[Any]:
    return [event.destination for event in side.events if isinstance(event, m.WhoHolds)]


def icmp_kinds(side: Side) -> list[tuple[int, int]]:
    """Type and code of every packet that this machine got, all of them ICMP."""
    packets = side.take_received()
    return [tuple(packet[parse(packet).payload_offset :][:2]) for packet in packets]  # type: ignore[misc]


def test_a_member_that_is_found_gets_the_packets_that_waited(side: Side) -> None:
    packets = [ipv4("10.1.0.1", STRANGER, b"one"), ipv4("10.1.0.1", STRANGER, b"two")]
    side.send(*packets)
    assert asked(side) == [ip_address(STRANGER)]
    assert not side.take_sent() and not side.take_received()
    side.engine.handle_command(m.SetPeer(5, (ip_network(STRANGER),), Endpoint("192.0.2.5", 5)), 0.5)
    assert [e.peer for e in side.events if isinstance(e, m.NeedHandshake)] == [5]
    side.engine.handle_command(keypair_a(5), 0.6)
    assert len(side.take_sent()) == 2
    assert side.engine.next_timeout() is None or side.engine.next_timeout() < HOLD_S  # type: ignore[operator]


def test_no_member_means_unreachable_at_once_and_for_a_while(side: Side) -> None:
    side.send(ipv4("10.1.0.1", STRANGER), ipv6("fd00::1", "fd00::77"))
    assert len(asked(side)) == 2
    for address in (STRANGER, "fd00::77"):
        side.engine.handle_command(m.NoMember(ip_address(address)), 1.0)
    assert icmp_kinds(side) == [(3, 1), (1, 3)]
    side.send(ipv4("10.1.0.1", STRANGER), now=1.0 + REFUSED_S - 0.1)
    assert icmp_kinds(side) == [(3, 1)] and len(asked(side)) == 2
    side.send(ipv4("10.1.0.1", STRANGER), now=1.0 + REFUSED_S)
    assert icmp_kinds(side) == [] and len(asked(side)) == 3


def test_without_an_answer_the_engine_gives_up_by_itself(side: Side) -> None:
    side.send(ipv4("10.1.0.1", STRANGER), now=2.0)
    assert HOLD_S > 3.0, "the control process has 3 s for its verdict"
    assert side.engine.next_timeout() == 2.0 + HOLD_S
    side.engine.handle_timeout(2.0 + HOLD_S - 0.01)
    assert icmp_kinds(side) == []
    side.engine.handle_timeout(2.0 + HOLD_S)
    assert icmp_kinds(side) == [(3, 1)]
    assert side.drops() == {"dataplane.no_peer": 1}
    side.engine.handle_command(m.NoMember(ip_address(STRANGER)), 7.0)
    assert icmp_kinds(side) == [], "an answer that comes too late"


def test_nothing_is_asked_outside_the_network_or_before_it_is_known(side: Side) -> None:
    side.send(ipv4("10.1.0.1", "10.9.0.1"))
    other = Pair.make().a
    other.send(ipv4("10.1.0.1", STRANGER))
    assert asked(side) == asked(other) == []
    assert icmp_kinds(side) == icmp_kinds(other) == [(3, 1)]


def test_what_waits_is_capped() -> None:
    questions: list[Any] = []
    unresolved = Unresolved(questions.append)
    unresolved.set_networks(NETWORKS)
    target = ip_address(STRANGER).packed
    for _ in range(MAX_PACKETS + 5):
        assert unresolved.hold(target, bytes(100), 0.0)
    assert unresolved.hold(ip_address("10.1.0.78").packed, bytes(65000), 0.0), "too long to be kept"
    for number in range(MAX_DESTINATIONS + 50):
        held = unresolved.hold(bytes([10, 1, 9 + number // 250, number % 250]), b"p", 0.0)
        assert held == (number < MAX_DESTINATIONS - 2)
    assert len(unresolved) == len(questions) == MAX_DESTINATIONS
    assert len(unresolved.refuse(ip_address(STRANGER), 0.0)) == MAX_PACKETS
    assert unresolved.refuse(ip_address("10.1.0.78"), 0.0) == []
    assert len(unresolved.expire(HOLD_S)) == MAX_DESTINATIONS - 2
    assert len(unresolved) == 0


def test_what_is_remembered_as_refused_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFUSED", 2)
    unresolved = Unresolved(lambda _: None)
    unresolved.set_networks(NETWORKS)
    for host in (1, 2, 3):
        unresolved.hold(bytes([10, 1, 0, host]), b"p", 0.0)
        unresolved.refuse(ip_address(bytes([10, 1, 0, host])), 0.0)
    assert [unresolved.hold(bytes([10, 1, 0, host]), b"p", 1.0) for host in (2, 3, 1)] == [False, False, True]
