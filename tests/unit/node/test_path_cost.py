"""What a connected peer costs the line at rest, by counting what is sent in virtual time.

Every part that sends along an idle path runs here as in a node. Renewals of the session's keys are added by
their sizes (WireGuard whitepaper, sections 5.4.2 to 5.4.4). In namespaces: tests/netns/test_path_cost.py.
"""

import asyncio
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from virtual_time import run

sys.path.insert(0, str(Path(__file__).parent))
from test_relay_client import CLAIMS, ONE, TWO, World, running

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Occasion, Peer, PeerTable
from dhtvpn.mesh.relay_wire import DATA_HEADER, HANDSHAKE_HEADER, Register, encode_service
from dhtvpn.node import relay_client
from dhtvpn.node.connector import LOOK_S, RELAYED_PAUSE_S
from dhtvpn.node.liveness import Liveness
from dhtvpn.node.neighbourhood import Neighbourhood
from dhtvpn.wireguard.constants import PADDING_UNIT, REKEY_AFTER_TIME

LIMIT = 25.0
"""Octets per second, each way."""
HEADERS = 28
"""IPv4 and UDP."""
DATA = 32
"""Header and tag of a data message."""
INITIATION, RESPONSE = 148, 92
HELLO = 3 + 22 + 63
"""With the longest name."""
SETTLED_S, MEASURED_S = 900.0, 3600.0
ROUND_TRIP_S = 0.02
CHECKS = 10
"""Requests of one brief ICE attempt: two endpoints of a peer, at 0, 0.25, 0.75, 1.75 and 2.75 s."""
CHECK = 132
"""A connectivity check with its headers, as measured."""


def datagram(plaintext: int, header: int = 0) -> int:
    """Octets of the IP packet that carries so much plaintext."""
    return HEADERS + header + DATA + -(-plaintext // PADDING_UNIT) * PADDING_UNIT


class Side:
    """One of two nodes at rest: pings and gossip."""

    def __init__(self, number: int) -> None:
        self.table = PeerTable()
        self.number, self.octets, self.counter = number, 0, 0
        other = bytes([2 - number]) * 32
        peer = self.table.add(
            tunnel_key=other,
            node_key=other,
            id="peer",
            name="peer",
            ipv4=IPv4Address("10.7.0.2"),
            ipv6=IPv6Address("fd00::2"),
        )
        assert peer is not None
        self.peer = peer
        peer.endpoint = Endpoint("198.18.2.2", 2)
        peer.move(Occasion.NEWS)
        peer.move(Occasion.SESSION_UP)
        self.far: Side
        self.liveness = Liveness(send_frame=self._send, random_bytes=self._random, lost=self._lost)
        self.hood = Neighbourhood(
            own_key=bytes([number + 1]) * 32,
            table=self.table,
            send_frame=self._send,
            willing=True,
            drops=Drops(),
            unix_time=lambda: 1.0,
        )

    def _random(self, size: int) -> bytes:
        self.counter += 37
        return (self.counter % 256**size).to_bytes(size, "big")

    def _lost(self, peer: Peer) -> None:
        raise AssertionError("the path works")

    def _send(self, peer: Peer, frame: frames.Frame) -> None:
        size = datagram(len(frames.encode(frame)))
        self.octets += size
        peer.tx_bytes += size
        self.liveness.packets_moved(peer)
        asyncio.get_running_loop().call_later(ROUND_TRIP_S / 2, self.far.got, frame, size)

    def got(self, frame: frames.Frame, size: int) -> None:
        self.peer.heard_bytes += size
        self.liveness.packets_moved(self.peer)
        if isinstance(frame, frames.Neighbours):
            self.hood.heard(self.peer, frame.links)
        else:
            assert isinstance(frame, frames.Ping | frames.Pong)
            self.liveness.frame_received(self.peer, frame)


async def pings_and_gossip() -> float:
    """Octets per second of the side that sends more."""
    sides = [Side(0), Side(1)]
    sides[0].far, sides[1].far = sides[1], sides[0]
    tasks = []
    for side in sides:
        side.liveness.watch(side.peer)
        side.hood.introduce(side.peer)
        tasks.append(asyncio.create_task(side.hood.run()))
    await asyncio.sleep(SETTLED_S)
    before = [side.octets for side in sides]
    await asyncio.sleep(MEASURED_S)
    rates = [(side.octets - then) / MEASURED_S for side, then in zip(sides, before, strict=True)]
    for side in sides:
        await side.liveness.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(side.peer.rtt_ms for side in sides) and min(rates) > 0
    return max(rates)


def renewals(header: int, handshake_header: int) -> float:
    """Of the session's keys: both messages, a keepalive and a Hello the same way, more than there is."""
    handshake = INITIATION + RESPONSE + 2 * (HEADERS + handshake_header)
    return (handshake + datagram(0, header) + datagram(HELLO, header)) / REKEY_AFTER_TIME


def test_a_direct_path_at_rest() -> None:
    async def scenario() -> None:
        cost = await pings_and_gossip() + renewals(0, 0)
        assert 2 < cost <= LIMIT / 2, "half is left for path MTU probes, and where the delay varies"

    run(scenario())


def test_a_relayed_path_at_rest() -> None:
    """The same, registrations with two volunteers, and attempts at a direct path."""

    async def scenario() -> None:
        world = World(ONE, TWO)
        task = await running(world, ONE, TWO, seconds=SETTLED_S)
        world.asked.clear()
        await asyncio.sleep(MEASURED_S)
        asked = sum(len(encode_service(message)) + HEADERS for _, message in world.asked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        registrations = asked / MEASURED_S
        shown = 1 + (len(CLAIMS) - 1) / 2  # of other epochs at every other renewal
        least = 2 * shown * (len(encode_service(Register(bytes(16), bytes(8)))) + HEADERS)
        assert registrations >= 0.8 * least / relay_client.RENEW_S
        attempts = CHECKS * CHECK / (0.75 * RELAYED_PAUSE_S + LOOK_S)
        along = await pings_and_gossip() * (1 + DATA_HEADER / datagram(11)) + renewals(
            DATA_HEADER, HANDSHAKE_HEADER
        )
        assert registrations + attempts + along <= LIMIT, (registrations, attempts, along)

    run(scenario(), give_up_s=4 * MEASURED_S)
