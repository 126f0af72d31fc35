"""Find out how a router's NAT behaves, by RFC 5780's method, with plain sockets in the namespaces.

None of the VPN's code takes part. A server with two addresses is two machines, ``server`` and ``stranger``,
each with two ports. "Nothing came" is never a matter of waiting: what must pass is sent after what may not,
on the same way.
"""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

from dhtvpn.lab.nat_behaviour import Allocation, Filtering, Mapping
from dhtvpn.lab.network import Network

SERVER_PORT, OTHER_PORT = 5001, 5002
RECEIVE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Seen:
    """One way out: which inside port, what the outside saw."""

    inside_port: int
    host: str
    port: int


class Prober:
    """The two servers' sockets, and fresh ones inside. Closed with ``stack``."""

    def __init__(self, network: Network, stack: ExitStack) -> None:
        self.network = network
        self._stack = stack
        self._next_port = 41_000
        self._servers = {
            (machine, port): self.open(machine, port)
            for machine in ("server", "stranger")
            for port in (SERVER_PORT, OTHER_PORT)
        }

    def open(self, machine: str, port: int) -> socket.socket:
        """A bound socket on ``machine``."""
        opened = self._stack.enter_context(self.network.node(machine).socket())
        opened.bind(("", port))
        opened.settimeout(RECEIVE_TIMEOUT_S)
        return opened

    def open_inside(self, machine: str = "inside") -> socket.socket:
        """A socket behind the router on a port that none had before."""
        self._next_port += 1
        return self.open(machine, self._next_port)

    def address(self, machine: str, port: int) -> tuple[str, int]:
        return str(self.network.node(machine).ipv4), port

    def seen(self, inside: socket.socket, machine: str, port: int) -> Seen:
        """How ``inside`` looks to that server."""
        inside.sendto(b"where am I", self.address(machine, port))
        _, source = self._servers[machine, port].recvfrom(100)
        return Seen(inside.getsockname()[1], source[0], source[1])

    def send(self, machine: str, port: int, data: bytes, to: Seen) -> None:
        """A datagram from that server to where the inside was seen."""
        self._servers[machine, port].sendto(data, (to.host, to.port))

    def mapping(self) -> Mapping:
        """RFC 5780 section 4.3: the same endpoint towards an address, another one, and another port of it."""
        inside = self.open_inside()
        ways = (("server", SERVER_PORT), ("stranger", SERVER_PORT), ("stranger", OTHER_PORT))
        first, second, third = (self.seen(inside, *way).port for way in ways)
        if first == second == third:
            return Mapping.ENDPOINT_INDEPENDENT
        return Mapping.ADDRESS_DEPENDENT if second == third else Mapping.ADDRESS_AND_PORT_DEPENDENT

    def filtering(self) -> Filtering:
        """RFC 5780 section 4.4: who may answer a request that went to server:5001."""
        inside = self.open_inside()
        mapped = self.seen(inside, "server", SERVER_PORT)
        self.send("stranger", OTHER_PORT, b"other address", mapped)
        self.send("server", OTHER_PORT, b"other port", mapped)
        self.send("server", SERVER_PORT, b"reply", mapped)
        match received(inside, last=b"reply"):
            case [b"other address", b"other port", b"reply"]:
                return Filtering.ENDPOINT_INDEPENDENT
            case [b"other port", b"reply"]:
                return Filtering.ADDRESS_DEPENDENT
            case [b"reply"]:
                return Filtering.ADDRESS_AND_PORT_DEPENDENT
            case other:
                raise AssertionError(f"no filtering lets in exactly {other}")

    def allocation(self, count: int = 8) -> Allocation:
        """Which ports ``count`` new inside endpoints get towards one server."""
        ways = [self.seen(self.open_inside(), "server", SERVER_PORT) for _ in range(count)]
        if all(way.port == way.inside_port for way in ways):
            return Allocation.PRESERVING
        steps = {later.port - earlier.port for earlier, later in pairwise(ways)}
        return Allocation.CONTIGUOUS if steps == {1} else Allocation.RANDOM

    def hairpins(self) -> bool:
        """RFC 4787 section 6: a datagram to another inside host's external endpoint arrives there, and its
        source is the sender's external endpoint."""
        inside, beside = self.open_inside("inside"), self.open_inside("beside")
        mapped = self.seen(beside, "server", SERVER_PORT)
        own = self.seen(inside, "server", SERVER_PORT)
        inside.sendto(b"turned", (mapped.host, mapped.port))
        self.send("server", SERVER_PORT, b"reply", mapped)
        data, source = beside.recvfrom(100)
        if data == b"reply":
            return False
        assert data == b"turned"
        assert source[0] == own.host, "an external address, RFC 4787 REQ-9a"
        beside.sendto(b"back", source)
        data, back = inside.recvfrom(100)
        assert (data, back) == (b"back", (mapped.host, mapped.port))
        return True


def received(receiver: socket.socket, last: bytes) -> list[bytes]:
    """Everything up to and including the datagram ``last``."""
    datagrams: list[bytes] = []
    while not datagrams or datagrams[-1] != last:
        datagrams.append(receiver.recv(100))
    return datagrams
