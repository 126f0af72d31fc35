"""Engines with relays between them: a volunteer, which the test plays, or members in a row."""

import os
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from engines_in_memory import Side

from dhtvpn.dataplane.messages import (
    Forward,
    InstallKeypair,
    Send,
    SetEndpoint,
    SetFeatures,
    SetOwnRelayIds,
    SetRelayIds,
    SetVia,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.relayed import relayed
from dhtvpn.system.tun import MemoryTun

RELAY = Endpoint("198.51.100.9", 4690)
ID_A, ID_B = b"aaaaaaa", b"bbbbbbb"
VIA = 3
BEYOND = relayed(VIA, 1)


def know_relay(side: Side, own: bytes, other: bytes) -> None:
    side.engine.handle_command(SetVia(VIA, RELAY, None), 0.0)
    side.engine.handle_command(SetOwnRelayIds((b"ccccccc", own)), 0.0)
    side.engine.handle_command(SetRelayIds(1, (other,)), 0.0)


class Row:
    """``count`` engines: number 0 is one end, the last is the other, and those between them relay. The peer
    number of an engine is its place plus one."""

    def __init__(self, count: int = 3, *, trains: bool = False, rate: int = 1 << 40) -> None:
        self.sides = [
            Side(
                IPv4Address(f"10.1.0.{n + 1}"),
                IPv6Address(f"fd00::{n + 1}"),
                Endpoint(f"192.0.2.{n + 1}", 4001 + n),
                MemoryTun(vnet_header=trains),
            )
            for n in range(count)
        ]
        self.ids = [bytes([n + 1]) * 7 for n in range(count)]
        self.seen: list[list[bytes]] = [[] for _ in range(count)]
        pairs = [(n, n + 1) for n in range(count - 1)]
        for a, b in [*pairs, (0, count - 1)]:
            self._session(a, b, trains)
        for side in self.sides[1:-1]:
            side.engine.handle_command(Forward(rate), 0.0)
        middle = self.ids[1:-1]
        self._reach(0, count - 1, 2, tuple(middle[1:]))
        self._reach(count - 1, 0, count - 1, tuple(reversed(middle[:-1])))

    @property
    def ends(self) -> tuple[Side, Side]:
        return self.sides[0], self.sides[-1]

    def _session(self, a: int, b: int, trains: bool) -> None:
        keys = os.urandom(32), os.urandom(32)
        for own, other, initiator in ((a, b, True), (b, a, False)):
            side = self.sides[own]
            side.know(self.sides[other], other + 1)
            send, receive = keys if initiator else keys[::-1]
            index = (own + 1) * 100 + other, (other + 1) * 100 + own
            command = InstallKeypair(other + 1, *index, send, receive, initiator, 0.0)
            side.engine.handle_command(command, 0.0)
            side.engine.handle_command(SetRelayIds(other + 1, (self.ids[other],)), 0.0)
            side.engine.handle_command(SetFeatures(other + 1, trains, trains, aes=False, blocks=trains), 0.0)
        if a + 1 != b or len(self.sides) == 2:
            return
        self.sides[a].engine.handle_command(Send(b + 1, b""), 0.0)  # confirms the responder's keypair
        self.sides[b].receive(*self.sides[a].take_sent(), source=self.sides[a].endpoint)

    def _reach(self, own: int, other: int, carrier: int, through: tuple[bytes, ...]) -> None:
        engine = self.sides[own].engine
        engine.handle_command(SetVia(7, None, carrier, through), 0.0)
        if through:
            engine.handle_command(SetVia(8, None, carrier), 0.0)
        engine.handle_command(SetEndpoint(other + 1, relayed(7, other + 1)), 0.0)

    def carry(self, now: float = 0.0) -> None:
        """Take datagrams to whose address they go, in runs, until none is left."""
        places = {side.endpoint: n for n, side in enumerate(self.sides)}
        while any(side.socket.sent for side in self.sides):
            for side in self.sides:
                sent, side.socket.sent = side.socket.sent, []
                side.socket.marks.clear()
                for run, address in sent:
                    self.seen[places[address]] += run
                    self.sides[places[address]].receive_run(run, source=tuple(side.endpoint), now=now)

    def events(self, n: int, kind: type[Any]) -> list[Any]:
        return [event for event in self.sides[n].events if isinstance(event, kind)]
