"""What is done with each peer when the network has changed or the machine has slept."""

import asyncio
from ipaddress import IPv6Address, ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import PeerState
from dhtvpn.mesh.relayed import relayed
from dhtvpn.node.recovery import Recovery
from dhtvpn.system.links import LinkLocal, NetworkFacts

V4, V6 = Endpoint("198.18.2.2", 2), Endpoint("2001:db8::2", 2)


class Bench:
    """Four peers: one at an IPv4 endpoint, one at an IPv6 one, one beyond a relay, and one without a path."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []
        self.answering: set[str] = set()
        self.members = [
            self._member("four", PeerState.CONNECTED, V4),
            self._member("six", PeerState.CONNECTED, V6),
            self._member("beyond", PeerState.CONNECTED, relayed(1, 3)),
            self._member("away", PeerState.UNREACHABLE, None),
        ]
        self.recovery = Recovery(
            interface="dv0",
            members=lambda: self.members,  # type: ignore[arg-type, return-value]
            tunnels=self._notes("initiate", "network_changed"),
            liveness=self._liveness(),
            lost=lambda peer: self._note("lost", peer.name),
            network_changed=lambda: self._note("port", None),
            surveying=SimpleNamespace(  # type: ignore[arg-type]
                soon=lambda *, afresh: self._note("survey", afresh), servers=()
            ),
            dht=None,
            announce=lambda: self._note("announce", None),
            say=lambda *_: None,
            in_background=asyncio.run,  # type: ignore[arg-type]
        )

    def _liveness(self) -> Any:
        async def ping(peer: Any, deadline_s: float) -> float | None:
            assert deadline_s < 1
            return 20.0 if peer.name in self.answering else None

        return SimpleNamespace(**vars(self._notes("doubt", "network_changed")), ping=ping)

    def _member(self, name: str, state: PeerState, endpoint: Endpoint | None) -> Any:
        peer = SimpleNamespace(name=name, number=hash(name), state=state, endpoint=endpoint)
        return SimpleNamespace(peer=peer, connector=SimpleNamespace(try_now=lambda: self._note("try", name)))

    def _notes(self, *names: str) -> Any:
        def note(name: str) -> Any:
            return lambda peer=None: self._note(name, peer.name if peer else None)

        return SimpleNamespace(**{name: note(name) for name in names})

    def _note(self, what: str, which: Any) -> None:
        self.done.append((what, which))

    def whom(self, what: str) -> list[Any]:
        return [which for name, which in self.done if name == what]

    def change(self, *addresses: str, near: tuple[LinkLocal, ...] = ()) -> None:
        facts = NetworkFacts(tuple(map(ip_address, addresses)), frozenset(), near)
        self.recovery.watch.facts = facts
        self.recovery.network_changed(facts)


def test_paths_that_may_still_work_are_asked_and_the_others_made_anew() -> None:
    bench = Bench()
    bench.change("192.0.2.1")
    assert bench.whom("doubt") == ["four", "beyond"] and bench.whom("lost") == ["six"]
    assert bench.whom("try") == ["beyond", "away"] and bench.whom("survey") == [True]
    assert not bench.whom("initiate")


def test_without_any_network_nothing_is_sent() -> None:
    bench = Bench()
    bench.change()
    assert bench.done == [] and bench.recovery.changes == 1


@pytest.mark.parametrize("known", [True, False])
def test_after_a_sleep_sessions_are_made_anew(known: bool) -> None:
    bench = Bench()
    if known:
        addresses = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
        bench.recovery.watch.facts = NetworkFacts(addresses, frozenset())
    bench.recovery.woke(3600)
    assert bench.whom("initiate") == bench.whom("doubt") == ["four", "six", "beyond"]
    assert bench.whom("try") == ["beyond", "away"] and bench.whom("survey") == [True]


@pytest.mark.parametrize("answering", [(), ("six",), ("four", "beyond")])
def test_after_a_short_sleep_only_who_does_not_answer_is_bothered(answering: tuple[str, ...]) -> None:
    bench = Bench()
    bench.answering = set(answering)
    bench.recovery.woke(6)
    silent = [name for name in ("four", "six", "beyond") if name not in answering]
    assert bench.whom("initiate") == silent and bench.whom("survey") == [True]
    assert bench.whom("try") == [name for name in ("beyond", "away") if name not in answering]


def test_a_short_sleep_that_nobody_has_noticed_changes_nothing() -> None:
    bench = Bench()
    bench.answering = {"four", "six", "beyond"}
    bench.recovery.woke(6)
    assert bench.done == [] and bench.recovery.changes == 1


def test_a_silent_path_has_the_outside_asked() -> None:
    bench = Bench()
    bench.recovery.path_lost()
    assert bench.whom("survey") == [False] and bench.whom("port") == [None]


def test_a_cable_that_is_out_says_nothing_of_address_families() -> None:
    bench = Bench()
    bench.change("192.0.2.1")
    assert bench.recovery.families == {4}
    bench.change("2001:db8::1")
    assert bench.recovery.families == {6}
    bench.change()
    assert bench.recovery.families == {4, 6}


def test_a_link_with_nothing_but_link_local_addresses_is_a_network() -> None:
    bench = Bench()
    bench.members[1].peer.endpoint = Endpoint("fe80:3::1", 2)
    bench.change(near=(LinkLocal(3, IPv6Address("fe80::9"), True),))
    assert bench.whom("doubt") == ["six", "beyond"] and bench.whom("lost") == ["four"]
    assert bench.whom("survey") == [True]


def test_a_path_to_a_neighbour_is_asked_for_as_long_as_there_is_any_address() -> None:
    bench = Bench()
    bench.members[1].peer.endpoint = Endpoint("fe80:3::1", 2)
    bench.change("192.0.2.1")
    assert bench.whom("doubt") == ["four", "six", "beyond"] and not bench.whom("lost")
