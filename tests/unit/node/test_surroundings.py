"""What the outside sees of a node: candidates from its own addresses and from what strangers say."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.membership.addresses import ipv4_network, ipv6_network
from dhtvpn.membership.network_id import Mode, NetworkId
from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.reflexive import FamilySurvey, Mapping, Survey
from dhtvpn.node.surroundings import MAX_LINK_LOCAL, MAX_LINKS_TRIED, Surroundings
from dhtvpn.records.record import (
    MAX_CANDIDATES,
    Candidate,
    CandidateKind,
    EndpointRecord,
    NatBehaviour,
    PublishedFiltering,
    PublishedMapping,
)
from dhtvpn.system.links import LinkLocal

NETWORK_ID = NetworkId(Mode.OPEN, bytes([1]) * 32, bytes([2]) * 32, None)
PORT = 4000
SERVER = Endpoint("198.18.0.1", 4690)
SEEN = Endpoint("198.18.5.5", 777)


class World:
    """The machine's addresses, and what STUN servers say."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = list(hosts)
        self.near: list[LinkLocal] = []
        self.answer = Survey(Mapping.UNKNOWN, [])
        self.around = Surroundings(
            network_id=NETWORK_ID,
            port=PORT,
            host_addresses=self._addresses,
            survey=self._survey,
            link_locals=self._link_locals,
        )

    async def _addresses(self) -> Sequence[IPv4Address | IPv6Address]:
        return [ip_address(host) for host in self.hosts]

    async def _link_locals(self) -> Sequence[LinkLocal]:
        return self.near

    async def _survey(self, servers: Sequence[Endpoint], own: Sequence[IPv4Address | IPv6Address]) -> Survey:
        assert list(servers) == [SERVER] and list(own) == await self._addresses()
        return self.answer

    def look(self) -> bool:
        return bool(run(self.around.look([SERVER])))

    def record(self) -> EndpointRecord:
        """The record with these candidates: raises ValueError where others would refuse it."""
        return EndpointRecord(
            node_key=bytes(32),
            name="desk",
            session_nonce=bytes(16),
            candidates=self.around.candidates(),
            ipv4_attempt=0,
            since=0,
            features=0,
        )


def test_reflexive_candidates_come_first_and_are_kept_when_nobody_answers() -> None:
    world = World("192.168.1.5", "2001:db8::5")
    world.answer = Survey(Mapping.ENDPOINT_INDEPENDENT, [SEEN])
    assert world.look()
    assert world.around.candidates() == (
        Candidate(SEEN, CandidateKind.REFLEXIVE),
        Candidate(Endpoint("192.168.1.5", PORT), CandidateKind.HOST),
        Candidate(Endpoint("2001:db8::5", PORT), CandidateKind.HOST),
    )
    world.answer = Survey(Mapping.UNKNOWN, [])
    assert not world.look()
    assert world.around.mapping is Mapping.ENDPOINT_INDEPENDENT


def symmetric(*ports: int, host: str = SEEN.host, in_order: bool | None = None) -> Survey:
    """A survey behind a NAT with another port for each server."""
    seen = tuple(Endpoint(host, port) for port in ports)
    servers = tuple(Endpoint(SERVER.host, number) for number in range(1, len(ports) + 1))
    found = FamilySurvey(Mapping.ADDRESS_AND_PORT_DEPENDENT, seen, len(ports), servers, in_order)
    return Survey(found.mapping, list(seen), {4: found})


def test_of_many_ports_at_one_address_one_is_a_candidate() -> None:
    world = World("192.168.1.5")
    world.answer = symmetric(30000, 41000, 52000)
    world.look()
    found = [candidate.endpoint for candidate in world.around.candidates()]
    assert found == [Endpoint(SEEN.host, 30000), Endpoint("192.168.1.5", PORT)]
    assert len(world.around.public_endpoints) == 3
    world.answer = Survey(Mapping.UNKNOWN, [SEEN, Endpoint(SEEN.host, 778)])
    world.look()
    assert len(world.around.candidates()) == 3, "that they depend on the server is not known here"


def test_order_of_ports_holds_until_we_are_seen_elsewhere_or_with_one_mapping() -> None:
    world = World("192.168.1.5")
    world.answer = symmetric(30000, 41000, 52000, in_order=False)
    world.look()
    assert world.around.ports_in_order is None
    world.answer = symmetric(30000, 30001, 30002, in_order=True)
    world.look()
    first = world.around.ports_in_order
    assert first is not None
    assert (first.witness, first.seen[-1].port) == (Endpoint(SERVER.host, 1), 30002)
    nobody = Survey(Mapping.UNKNOWN, [])
    for world.answer in (symmetric(30001, 30000, 30009, in_order=False), symmetric(30004), nobody):
        world.look()
        assert world.around.ports_in_order == first
    world.answer = symmetric(30001, 40000, 30009, host="198.18.6.6", in_order=False)
    world.look()
    assert world.around.ports_in_order is None
    world.answer = symmetric(30000, 30001, 30002, in_order=True)
    world.look()
    one = FamilySurvey(Mapping.ENDPOINT_INDEPENDENT, (SEEN,), 2, (SERVER,))
    world.answer = Survey(one.mapping, [SEEN], {4: one})
    world.look()
    assert world.around.ports_in_order is None


def test_without_nat_the_host_candidate_is_not_said_twice() -> None:
    world = World("198.18.5.5")
    world.answer = Survey(Mapping.NONE, [Endpoint("198.18.5.5", PORT)])
    world.look()
    assert [candidate.kind for candidate in world.around.candidates()] == [CandidateKind.HOST]


@pytest.mark.parametrize(
    "lie", ["224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1", "240.0.0.1", "ff02::1", "::", "::1"]
)
def test_a_stun_server_that_lies_cannot_spoil_the_record(lie: str) -> None:
    world = World("192.168.1.5")
    world.answer = Survey(Mapping.UNKNOWN, [Endpoint(lie, 9), SEEN])
    world.look()
    assert {candidate.endpoint.host for candidate in world.record().candidates} == {
        "192.168.1.5",
        "198.18.5.5",
    }
    world.answer = Survey(Mapping.UNKNOWN, [Endpoint(lie, 9)])
    assert not world.look()


def test_addresses_inside_the_overlay_are_no_way_to_reach_it() -> None:
    inside = [str(ipv4_network(NETWORK_ID)[5]), str(ipv6_network(NETWORK_ID)[5])]
    world = World(*inside, "192.168.1.5")
    world.look()
    assert [candidate.endpoint.host for candidate in world.around.candidates()] == ["192.168.1.5"]
    offered = [Candidate(Endpoint(host, 9), CandidateKind.HOST) for host in (*inside, "192.0.2.1")]
    assert world.around.usable(offered) == offered[2:]


def test_a_machine_with_many_addresses_publishes_what_fits() -> None:
    world = World(*(f"192.168.1.{number}" for number in range(1, 40)))
    world.answer = Survey(Mapping.UNKNOWN, [SEEN])
    world.look()
    assert len(world.record().candidates) == MAX_CANDIDATES
    assert world.around.candidates()[0].endpoint == SEEN


def test_the_filter_of_a_nat_is_asked_for_until_a_server_knows_it() -> None:
    world = World("192.168.1.5")
    asked: list[Endpoint] = []
    old, new = SERVER, Endpoint("198.18.0.2", 4690)

    async def find(server: Endpoint) -> Filtering:
        asked.append(server)
        return Filtering.UNKNOWN if server == old else Filtering.BY_PORT

    world.around._find_filtering = find

    async def scenario() -> None:
        assert not await world.around.look_at_filtering([old, new])
        world.answer = Survey(Mapping.UNKNOWN, [SEEN])
        await world.around.look([SERVER])
        assert await world.around.look_at_filtering([old, new, old])
        assert not await world.around.look_at_filtering([old])

    run(scenario())
    assert asked == [old, new, old]
    assert world.around.nat == NatBehaviour(PublishedMapping.UNKNOWN, PublishedFiltering.BY_PORT)


def test_without_nat_there_is_no_filter_to_ask_for() -> None:
    world = World("198.18.5.5")
    world.answer = Survey(Mapping.NONE, [Endpoint("198.18.5.5", PORT)])
    world.look()
    assert not run(world.around.look_at_filtering([SERVER]))
    assert world.around.nat == NatBehaviour(PublishedMapping.NONE)


def near(number: int, *, alone: bool = True) -> LinkLocal:
    """This machine's address on interface ``number``."""
    return LinkLocal(number, IPv6Address(f"fe80::{number}"), alone)


def hosts(*texts: str) -> list[Candidate]:
    return [Candidate(Endpoint(text, 9), CandidateKind.HOST) for text in texts]


def test_link_local_addresses_are_told_last_without_zone_and_only_where_they_are_alone() -> None:
    world = World("192.168.1.5")
    world.near = [near(2, alone=False), *map(near, (3, 4, 5))]
    world.answer = Survey(Mapping.UNKNOWN, [SEEN])
    assert world.look()
    told = [candidate.endpoint for candidate in world.record().candidates]
    assert told == [SEEN, *(Endpoint(host, PORT) for host in ("192.168.1.5", "fe80::3", "fe80::4"))]
    assert not world.around.has_choice(ipv6=True)


def test_other_links_than_before_are_news() -> None:
    world = World("192.168.1.5")
    world.look()
    world.near = [near(2, alone=False)]
    assert world.look() and not world.look()


def test_a_stranger_may_send_us_to_no_link_local_address() -> None:
    world = World("192.168.1.5")
    world.near = [near(2)]
    world.answer = Survey(Mapping.UNKNOWN, [Endpoint("fe80::77", 9), SEEN])
    world.look()
    assert world.around.public_endpoints == (SEEN,)
    assert not world.around.may_send_to(Endpoint("fe80:2::77", 9))
    assert world.around.usable(hosts("fe80::77", "192.0.2.1")) == hosts("192.0.2.1")


def test_the_addresses_of_a_neighbour_are_tried_on_our_links() -> None:
    world = World()
    told = hosts("192.0.2.1", "fe80::77")
    assert world.around.on_our_links(told) == []
    world.near = [near(2), near(3, alone=False)]
    world.look()
    assert world.around.on_our_links(told) == hosts("fe80:2::77", "fe80:3::77")
    assert world.around.on_our_links(hosts("192.0.2.1")) == []
    reflexive = [Candidate(Endpoint("fe80::77", 9), CandidateKind.REFLEXIVE)]
    assert world.around.on_our_links([*reflexive, *hosts("fe90::1", "fe80:5::1")]) == []


@pytest.mark.parametrize("others", [0, 10, 14])
def test_a_record_full_of_link_local_addresses_makes_no_more_checks_than_another(others: int) -> None:
    world = World()
    world.near = [near(number) for number in range(2, 12)]
    world.look()
    told = hosts(
        *(f"192.0.2.{number}" for number in range(1, others + 1)),
        *(f"fe80::{number:x}" for number in range(0x70, 0x70 + MAX_CANDIDATES - others)),
    )
    found = world.around.on_our_links(told)
    assert len(found) == min(MAX_LINK_LOCAL * MAX_LINKS_TRIED, MAX_CANDIDATES - others)
    assert len(world.around.usable(told)) + len(found) <= MAX_CANDIDATES
