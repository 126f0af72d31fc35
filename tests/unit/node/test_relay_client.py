"""Registrations at volunteers, in virtual time."""

import asyncio

from virtual_time import run

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.relay_wire import (
    NO_TOKEN,
    NotHere,
    Refused,
    Register,
    Registered,
    Stranger,
    Token,
    decode_service,
    encode_service,
    relay_id,
)
from dhtvpn.node import relay_client as module
from dhtvpn.node.relay_client import RelayClient

CLAIMS = (bytes(16), bytes([1]) * 16)
ONE, TWO, THREE = (Endpoint(f"198.51.100.{number}", 4690) for number in (1, 2, 3))
TOKEN = b"tokentok"


class World:
    """Volunteers that answer after 20 ms; everybody else is silent."""

    def __init__(self, *volunteers: Endpoint) -> None:
        self.volunteers = set(volunteers)
        self.full: set[Endpoint] = set()
        self.asked: list[tuple[Endpoint, Register]] = []
        self.changes = 0
        self.not_here: list[tuple[Endpoint, bytes]] = []
        self.lost: list[Endpoint] = []
        self.drops = Drops()
        self.token = TOKEN
        self.client = RelayClient(
            send=self.send,
            claims=lambda: CLAIMS,
            changed=self.changed,
            not_here=lambda *what: self.not_here.append(what),
            lost=self.lost.append,
            drops=self.drops,
        )

    def changed(self) -> None:
        self.changes += 1

    def send(self, data: bytes, endpoint: Endpoint) -> None:
        message = decode_service(data)
        assert isinstance(message, Register)
        self.asked.append((endpoint, message))
        if endpoint not in self.volunteers:
            return
        identity = relay_id(message.claim)
        if message.token != self.token:
            answer = encode_service(Token(self.token))
        else:
            answer = encode_service(Refused(identity) if endpoint in self.full else Registered(identity, 60))
        asyncio.get_running_loop().call_later(0.02, self.client.datagram_received, answer, endpoint)

    def asked_of(self, endpoint: Endpoint) -> int:
        return sum(each == endpoint for each, _ in self.asked)


async def running(world: World, *candidates: Endpoint, seconds: float) -> asyncio.Task[None]:
    task = asyncio.create_task(world.client.run(lambda: candidates))
    await asyncio.sleep(seconds)
    return task


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_node_is_at_home_with_two_in_two_round_trips() -> None:
    async def scenario() -> None:
        world = World(ONE, TWO, THREE)
        task = await running(world, ONE, TWO, seconds=0.1)
        assert set(world.client.homes) == {ONE, TWO} and world.changes == 2
        assert world.asked[0][1] == Register(CLAIMS[0], NO_TOKEN)
        claims = {message.claim for endpoint, message in world.asked if message.token == TOKEN}
        assert claims == set(CLAIMS)
        await end(task)

    run(scenario())


def test_registrations_are_renewed_and_last() -> None:
    async def scenario() -> None:
        world = World(ONE, TWO)
        task = await running(world, ONE, TWO, seconds=1)
        before = len(world.asked)
        await asyncio.sleep(600)
        assert world.client.registered(ONE) and world.client.registered(TWO)
        assert len(world.asked) - before <= 2 * 2 * (600 / module.RENEW_S + 1)
        world.token = b"tokenTOK"  # it was started anew
        await asyncio.sleep(60)
        assert world.client.registered(ONE) and not world.lost and world.changes == 2
        await end(task)

    run(scenario())


def test_claims_of_other_epochs_are_shown_at_every_other_renewal_and_to_one_that_has_forgotten() -> None:
    async def scenario() -> None:
        world = World(ONE)
        task = await running(world, ONE, seconds=600)
        shown = [message.claim for _, message in world.asked if message.token == TOKEN]
        present, other = (shown.count(claim) for claim in CLAIMS)
        assert present >= 600 / module.RENEW_S - 2 and abs(other - present / 2) <= 1
        if world.asked[-1][1].claim == CLAIMS[1]:  # the next shows the present one's alone
            await asyncio.sleep(module.RENEW_S)
        assert world.asked[-1][1].claim == CLAIMS[0]
        world.token, world.asked = b"tokenTOK", []
        await asyncio.sleep(module.RENEW_S + 1)
        assert {message.claim for _, message in world.asked if message.token == world.token} == set(CLAIMS)
        await end(task)

    run(scenario())


def test_who_does_not_answer_is_not_asked_again_for_long() -> None:
    async def scenario() -> None:
        world = World(TWO)
        task = await running(world, ONE, TWO, seconds=60)
        assert world.client.homes == (TWO,)
        assert world.asked_of(ONE) == module.ATTEMPTS + 1
        await end(task)

    run(scenario())


def test_a_volunteer_that_vanishes_is_given_up_and_another_taken() -> None:
    async def scenario() -> None:
        world = World(ONE, TWO, THREE)
        task = await running(world, ONE, TWO, THREE, seconds=5)
        gone = world.client.homes[0]
        world.volunteers.remove(gone)
        await asyncio.sleep(module.RENEW_S + 15)
        assert gone in world.lost and gone not in world.client.homes
        assert len(world.client.homes) == 2 and not world.client.registered(gone)
        await end(task)

    run(scenario())


SIX = Endpoint("2001:db8::9", 4690)


def test_volunteers_of_an_address_family_that_is_gone_are_left_and_others_found_at_once() -> None:
    async def scenario() -> None:
        world = World(ONE, SIX)
        task = await running(world, ONE, SIX, seconds=0.1)
        world.volunteers = {SIX}
        await asyncio.sleep(1)
        world.client.network_changed([4])
        assert world.client.homes == (ONE,) and world.lost == [SIX]
        await asyncio.sleep(1)
        world.asked.clear()
        world.client.network_changed([6])
        assert world.client.homes == () and world.lost == [SIX, ONE]
        assert not await world.client.register(ONE)
        await asyncio.sleep(0.2)
        assert world.client.homes == (SIX,) and {endpoint for endpoint, _ in world.asked} == {SIX}
        await end(task)

    run(scenario())


def test_a_full_volunteer_is_left_alone() -> None:
    async def scenario() -> None:
        world = World(ONE)
        world.full.add(ONE)
        task = await running(world, ONE, seconds=60)
        assert world.client.homes == () and world.asked_of(ONE) <= 2 * len(CLAIMS)
        await end(task)

    run(scenario())


def test_a_guest_registers_once_and_is_forgotten_later() -> None:
    async def scenario() -> None:
        world = World(ONE, THREE)
        task = await running(world, ONE, seconds=1)
        assert await asyncio.gather(*(world.client.register(THREE) for _ in range(5))) == [True] * 5
        assert world.asked_of(THREE) == 1 + len(CLAIMS)
        assert world.client.homes == (ONE,)
        assert not await world.client.register(TWO)
        await asyncio.sleep(module.GUEST_S + 10)
        assert not world.client.registered(THREE) and THREE in world.lost
        await end(task)

    run(scenario())


def test_notices_of_volunteers_and_of_others() -> None:
    async def scenario() -> None:
        world = World(ONE)
        task = await running(world, ONE, seconds=1)
        world.client.datagram_received(encode_service(NotHere(b"idididi")), ONE)
        assert world.not_here == [(ONE, b"idididi")]
        world.client.datagram_received(encode_service(Registered(relay_id(CLAIMS[0]), 60)), TWO)
        assert not world.client.registered(TWO)
        world.client.datagram_received(b"\xdb\xff", ONE)
        world.client.datagram_received(encode_service(Register(CLAIMS[0], TOKEN)), ONE)
        assert world.drops.as_dict() == {"relay.relay_kind": 1, "relay.unasked": 2}
        await end(task)

    run(scenario())


def test_a_volunteer_that_knows_us_no_more_is_asked_again_at_once_but_not_all_the_time() -> None:
    async def scenario() -> None:
        world = World(ONE)
        task = await running(world, ONE, seconds=5)
        before = world.asked_of(ONE)
        for _ in range(100):  # somebody may write so from its address
            world.client.datagram_received(encode_service(Stranger()), ONE)
            await asyncio.sleep(0.03)
        asked = (world.asked_of(ONE) - before) / len(CLAIMS)
        assert 1 < asked <= 3 / module.STRANGER_S + 1
        assert world.client.registered(ONE)
        await end(task)

    run(scenario())


def test_after_a_change_of_the_network_volunteers_are_asked_at_once() -> None:
    async def scenario() -> None:
        world = World(ONE)
        task = await running(world, ONE, TWO, seconds=10)
        assert world.client.homes == (ONE,)
        world.volunteers.add(TWO)  # it was out of reach
        before = world.asked_of(ONE)
        world.client.network_changed()
        await asyncio.sleep(0.01)
        assert world.asked_of(ONE) > before
        await asyncio.sleep(module.LOOK_S + 0.1)
        assert world.client.homes == (ONE, TWO)
        await end(task)

    run(scenario())


def test_while_nobody_answers_no_volunteer_is_given_up_before_its_lease_ends() -> None:
    async def scenario() -> None:
        world = World(ONE, TWO)
        task = await running(world, ONE, TWO, seconds=5)
        world.volunteers.clear()  # the own router starts again
        world.client.network_changed()
        await asyncio.sleep(30)
        assert not world.lost and set(world.client.homes) == {ONE, TWO}
        before = len(world.asked)
        world.volunteers |= {ONE, TWO}
        await asyncio.sleep(2)
        assert len(world.asked) > before
        await asyncio.sleep(60)
        assert not world.lost and world.client.registered(ONE)
        world.volunteers.clear()
        await asyncio.sleep(module.RENEW_S + 60 + 5)
        assert set(world.lost) == {ONE, TWO} and world.client.homes == ()
        await end(task)

    run(scenario())


def test_nobody_is_kept_for_longer_than_a_lease_may_last() -> None:
    async def scenario() -> None:
        world = World(ONE)
        task = await running(world, ONE, seconds=1)
        world.client.datagram_received(encode_service(Registered(relay_id(CLAIMS[0]), 65535)), ONE)
        world.volunteers.clear()
        await asyncio.sleep(module.MAX_LEASE_S + 10)
        assert not world.client.registered(ONE) and world.lost == [ONE]
        await end(task)

    run(scenario())
