"""Hosts behind simulated NATs, in virtual time: ports in memory for what talks through a UdpPort.

A realm is what one address means something in: the outside, or one NAT's inside. NATs nest.
"""

import asyncio
import random
from collections.abc import Callable, Sequence

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.nat_behaviour import Nat
from dhtvpn.lab.simulation.simulated_nat import SimulatedNat
from dhtvpn.nat.demux import Kind, classify
from dhtvpn.nat.reflexive import ask
from dhtvpn.nat.stun_router import StunRouter
from dhtvpn.nat.stun_service import StunService

HOP_S = 0.005
"""One way through one realm."""

IN_TURN_S = 1e-6
"""Between two datagrams that are sent in one moment."""

OTHER_PORT = 4691
"""From which a server answers filter tests."""

Receive = Callable[[bytes, Endpoint, Endpoint], None]
"""(datagram, source, destination)"""


class Realm:
    """Delivers by address; what it does not know goes out through its NAT, if it is behind one."""

    def __init__(self, exit_nat: "NatBox | None" = None) -> None:
        self.exit_nat = exit_nat
        self.carried = 0
        self._last_at = 0.0
        self._machines: dict[str, Receive] = {}

    def attach(self, host: str, receive: Receive) -> None:
        assert host not in self._machines, host
        self._machines[host] = receive

    def carry(self, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        self.carried += 1
        receive = self._machines.get(destination.host)
        loop = asyncio.get_running_loop()
        # timers of one moment go off in any order: a line keeps the order of what it carries
        self._last_at = max(loop.time() + HOP_S, self._last_at + IN_TURN_S)
        if receive is not None:
            loop.call_at(self._last_at, receive, data, source, destination)
        elif self.exit_nat is not None:
            loop.call_at(self._last_at, self.exit_nat.send_out, data, source, destination)


class NatBox:
    """A router: its NAT, the realm outside, the realm inside."""

    def __init__(self, behaviour: Nat, outer: Realm, host: str, seed: int = 1) -> None:
        self.nat = SimulatedNat(behaviour, host, random.Random(seed))
        self.outer, self.inner = outer, Realm(self)
        outer.attach(host, self._receive)

    def send_out(self, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        now = asyncio.get_running_loop().time()
        if destination.host != self.nat.host:
            self.outer.carry(data, self.nat.outgoing(source, destination, now), destination)
        elif turned := self.nat.turned(source, destination.port, now):
            self.inner.carry(data, *turned)

    def _receive(self, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        inside = self.nat.incoming(source, destination.port, asyncio.get_running_loop().time())
        if inside is not None:
            self.inner.carry(data, source, inside)


class MemoryPort:
    """What ICE and STUN need of a UdpPort: one IPv4 endpoint in a realm."""

    families = (4,)

    def __init__(self, realm: Realm, endpoint: Endpoint) -> None:
        self.endpoint, self.port, self.realm = endpoint, endpoint.port, realm
        self.drops = Drops()
        self.stun = StunRouter(self.drops)
        self.sent = 0
        realm.attach(endpoint.host, self._receive)

    def send(self, data: bytes, endpoint: Endpoint) -> bool:
        self.sent += 1
        self.realm.carry(data, self.endpoint, endpoint)
        return True

    answer = send

    def answer_from_other_port(self, data: bytes, endpoint: Endpoint) -> int:
        other = Endpoint(self.endpoint.host, OTHER_PORT)
        self.realm.carry(data, other, endpoint)
        return OTHER_PORT

    def close(self) -> None:
        """Its host stays; nobody listens any more."""
        self.stun = StunRouter(self.drops)

    def _receive(self, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        if destination != self.endpoint:
            self.drops.count("port", "closed")
        elif classify(data) is Kind.STUN:
            self.stun.handle_datagram(data, source)
        else:
            self.drops.count("port", "unknown")


class MemoryInternet:
    """The outside, with STUN servers, and homes that are built as they are needed. Made in a loop."""

    def __init__(self, servers: int = 2) -> None:
        self.outside = Realm()
        self._homes = 0
        hosts = [f"198.18.0.{number}" for number in range(1, servers + 1)]
        self.servers = [MemoryPort(self.outside, Endpoint(host, 4690)) for host in hosts]
        for server in self.servers:
            StunService(server, clock=asyncio.get_running_loop().time)

    def home(self, nats: Sequence[Nat], outer: Realm | None = None) -> Realm:
        """A realm behind these NATs, the nearest first; none: the outside itself, or ``outer``."""
        realm = outer or self.outside
        for nat in reversed(nats):
            self._homes += 1
            address = f"10.{self._homes}.0.1" if realm.exit_nat else f"198.18.{self._homes}.2"
            realm = NatBox(nat, realm, address, seed=self._homes).inner
        return realm

    def port(self, realm: Realm, number: int = 41_000) -> MemoryPort:
        """A host's port in ``realm``, at an address of its own."""
        self._homes += 1
        host = f"192.168.{self._homes}.10" if realm.exit_nat else f"198.18.{self._homes}.2"
        return MemoryPort(realm, Endpoint(host, number))

    async def candidates(self, port: MemoryPort) -> list[tuple[Endpoint, str]]:
        """A host's own endpoint, and the one that the first server sees."""
        seen = await ask(port, self.servers[0].endpoint, 2.0)
        found = [(port.endpoint, "HOST")]
        return found if seen == port.endpoint else [*found, (seen, "REFLEXIVE")]
