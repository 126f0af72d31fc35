"""Relays and members send whatever they like: nothing raises, nothing loops, nothing reaches the device."""

import os
from ipaddress import IPv4Address, IPv6Address

from engines_in_memory import Side
from hypothesis import given, settings
from hypothesis import strategies as st

from dhtvpn.dataplane.block_sender import BlockSealer
from dhtvpn.dataplane.messages import (
    Forward,
    InstallKeypair,
    Send,
    SetFeatures,
    SetOwnRelayIds,
    SetRelayIds,
    SetVia,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.relay_wire import MAX_IDS, MAX_MESSAGES
from dhtvpn.system.tun import MemoryTun
from dhtvpn.wireguard.constants import TYPE_DATA

RELAY = Endpoint("198.51.100.9", 4690)
IDS = [bytes([number + 1]) * 7 for number in range(4)]
NAMED = st.one_of(st.sampled_from(IDS), st.binary(min_size=7, max_size=7))
FRAMES = st.one_of(
    st.binary(max_size=80).map(lambda data: b"\x21" + data),
    st.builds(
        lambda mark, ids, rest: bytes((mark | len(ids),)) + b"".join(ids) + rest,
        st.sampled_from((0x20, 0x30)),
        st.lists(NAMED, max_size=6),
        st.binary(max_size=200),
    ),
)


class Square:
    """Four engines, each with a session to each other, all of which relay."""

    def __init__(self, *, trains: bool = False) -> None:
        self._trains = trains
        self.sides = [
            Side(
                IPv4Address(f"10.1.0.{n + 1}"),
                IPv6Address(n + 1),
                Endpoint(f"192.0.2.{n + 1}", 4001 + n),
                MemoryTun(vnet_header=trains),
            )
            for n in range(4)
        ]
        for a in range(4):
            side = self.sides[a]
            side.engine.handle_command(Forward(1 << 40), 0.0)
            side.engine.handle_command(SetOwnRelayIds((IDS[a],)), 0.0)
            side.engine.handle_command(SetVia(100, RELAY, None), 0.0)
            for b in range(a):
                self._session(a, b)

    def _session(self, a: int, b: int) -> None:
        keys = os.urandom(32), os.urandom(32)
        for own, other, initiator in ((a, b, True), (b, a, False)):
            side = self.sides[own]
            side.know(self.sides[other], other + 1)
            sending, receiving = keys if initiator else keys[::-1]
            indices = (own + 1) * 100 + other, (other + 1) * 100 + own
            keypair = InstallKeypair(other + 1, *indices, sending, receiving, initiator, 0.0)
            side.engine.handle_command(keypair, 0.0)
            side.engine.handle_command(SetRelayIds(other + 1, (IDS[other],)), 0.0)
            features = SetFeatures(other + 1, self._trains, self._trains, aes=False, blocks=self._trains)
            side.engine.handle_command(features, 0.0)
            side.engine.handle_command(SetVia(other + 1, None, other + 1), 0.0)
        self.sides[a].engine.handle_command(Send(b + 1, b""), 0.0)
        self.sides[b].receive(*self.sides[a].take_sent(), source=tuple(self.sides[a].endpoint))

    def carry(self) -> int:
        """Deliver until nothing is on its way; how many datagrams that took."""
        places = {side.endpoint: side for side in self.sides}
        count = 0
        while any(side.socket.sent for side in self.sides):
            for side in self.sides:
                sent, side.socket.sent = side.socket.sent, []
                side.socket.marks.clear()
                for run, address in sent:
                    count += len(run)
                    assert count < 1000, "a frame goes in a circle"
                    if address in places:
                        places[address].receive_run(run, source=tuple(side.endpoint))
        return count


@settings(max_examples=60, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=6))
def test_a_member_may_send_any_frame(frames: list[bytes]) -> None:
    square = Square()
    for frame in frames:
        square.sides[0].engine.handle_command(Send(2, frame), 0.0)
        assert square.carry() <= 1 + MAX_IDS
    assert all(side.take_received() == [] for side in square.sides)


RUNS = st.builds(
    lambda zero, stride, mark, ids, rest: (
        zero.to_bytes(2, "little")
        + stride.to_bytes(2, "little")
        + bytes((mark | len(ids),))
        + b"".join(ids)
        + rest
    ),
    st.sampled_from((0, 0, 0, 1)),
    st.one_of(st.integers(0, 80), st.integers(0, 65535)),
    st.sampled_from((0x20, 0x20, 0x30, 0x40)),
    st.lists(NAMED, max_size=5),
    st.binary(max_size=4000),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(RUNS, st.binary(max_size=100)), min_size=1, max_size=4), st.booleans())
def test_a_member_may_seal_any_block(plaintexts: list[bytes], wanted: bool) -> None:
    square = Square(trains=True)
    for side in square.sides:
        for peer in side.engine._peers.by_number.values():
            peer.blocks_wanted = wanted
    engine = square.sides[0].engine
    peer, sealer = engine._peers.by_number[2], BlockSealer()
    session = peer.transport.sending(0.0)
    assert session is not None
    for plaintext in plaintexts:
        block = sealer.seal(session, TYPE_DATA, plaintext, 1000)
        assert block is not None
        engine._transmitter.send_run(peer, memoryview(block), 1000, 0)
        assert square.carry() <= 5 + MAX_IDS * MAX_MESSAGES
    assert all(side.take_received() == [] for side in square.sides)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=120), min_size=1, max_size=6),
    st.sampled_from([*IDS, b"\0" * 7]),
    st.sampled_from([RELAY, Endpoint("203.0.113.1", 1)]),
)
def test_a_volunteer_may_send_anything(bodies: list[bytes], identity: bytes, source: Endpoint) -> None:
    square = Square()
    for body in bodies:
        square.sides[0].receive(b"\xd9" + identity + body, b"\xd9" + body, source=tuple(source))
    longest = max(map(len, bodies))
    run = [b"\xd9" + identity + body.ljust(longest, b"\0") for body in bodies]
    square.sides[0].receive_run(run, source=tuple(source))
    assert square.sides[0].take_received() == [] and square.carry() == 0
