"""Two WireGuard sides in memory: a device and a transport each, as in the control process and the engine."""

import hashlib
from collections.abc import Callable

import pytest

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.wireguard import device as wg
from dhtvpn.wireguard.transport import PeerTransport

UNIX_TIME = 1_700_000_000.0
PRESHARED_KEY = bytes(range(32))


def scripted_random(seed: str) -> Callable[[int], bytes]:
    """Repeatable bytes, never the same twice."""
    count = 0

    def random_bytes(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed} {count}".encode()).digest(size)

    return random_bytes


class Side:
    """A device with one peer, the transport that its engine would have, and what happened so far."""

    def __init__(self, name: str, endpoint: Endpoint, **options: object) -> None:
        self.endpoint = endpoint
        self.drops = Drops()
        random_bytes = scripted_random(name)
        self.device = wg.Device(random_bytes(32), random_bytes, drops=self.drops, **options)
        self.transport = PeerTransport(1420, self._confirmed)
        self.events: list[wg.Event] = []
        self.outgoing: list[tuple[bytes, Endpoint]] = []
        self.delivered: list[bytes] = []

    def meet(self, other: "Side", *, keepalive_s: float | None = None, endpoint: bool = True) -> None:
        self.peer = self.device.add_peer(other.device.public_key, PRESHARED_KEY, keepalive_s)
        if endpoint:
            self.peer.set_endpoint(other.endpoint)

    def _confirmed(self, local_index: int) -> None:
        self.peer.keypair_confirmed(local_index)

    def initiate(self, now: float, **options: bool) -> None:
        self.peer.initiate(now, UNIX_TIME + now, **options)
        self.flush(now)

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        if datagram[0] == 4:
            plaintext = self.transport.open(datagram, now)
            if plaintext:
                self.peer.data_received(now)
                self.delivered.append(plaintext)
            else:
                self.peer.keepalive_received(now)
        else:
            self.device.handle_datagram(datagram, source, now, UNIX_TIME + now)
        self.flush(now)

    def send(self, plaintext: bytes, now: float) -> bool:
        datagram = self.transport.seal(plaintext, now)
        if datagram is None:
            self.peer.needs_handshake(now, UNIX_TIME + now)
        else:
            self.outgoing.append((datagram, self.peer.endpoint))
            self.peer.data_sent(now)
        self.flush(now)
        return datagram is not None

    def wake(self, now: float) -> None:
        self.device.handle_timeout(now, UNIX_TIME + now)
        self.flush(now)

    def flush(self, now: float) -> None:
        self.outgoing += self.device.datagrams_to_send()
        for event in self.device.events():
            self.events.append(event)
            if isinstance(event, wg.KeypairReady):
                self.transport.install(event.keypair)
            elif isinstance(event, wg.KeypairsErased):
                self.transport.erase()
            elif isinstance(event, wg.SendKeepalive):
                datagram = self.transport.seal(b"", now)
                if datagram is not None:
                    self.outgoing.append((datagram, self.peer.endpoint))

    def take(self) -> list[bytes]:
        """What it sent since the last time."""
        outgoing, self.outgoing = self.outgoing, []
        return [datagram for datagram, _ in outgoing]

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


class Pair:
    """Two sides and a clock. The link between them delivers at once unless a test takes the datagrams."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b
        self.now = 0.0

    def deliver(self) -> None:
        """Until nothing is on its way."""
        while self.a.outgoing or self.b.outgoing:
            for datagram in self.a.take():
                self.b.receive(datagram, self.a.endpoint, self.now)
            for datagram in self.b.take():
                self.a.receive(datagram, self.b.endpoint, self.now)

    def connect(self) -> None:
        self.a.initiate(self.now)
        self.deliver()
        assert self.a.transport.ready(self.now)
        assert self.b.transport.ready(self.now)
        self.a.events.clear()
        self.b.events.clear()

    def run(self, until: float, *, deliver: bool = True) -> None:
        """Let time pass from timeout to timeout."""
        if deliver:
            self.deliver()
        while True:
            timeouts = [side.device.next_timeout() for side in (self.a, self.b)]
            due = min((timeout for timeout in timeouts if timeout is not None), default=until)
            if due > until:
                break
            self.now = max(self.now, due)
            self.a.wake(self.now)
            self.b.wake(self.now)
            if deliver:
                self.deliver()
            if due >= until:
                break
        self.now = until


@pytest.fixture
def make_side() -> Callable[..., Side]:
    return Side


@pytest.fixture
def pair() -> Pair:
    """Two sides that know each other and each other's endpoints."""
    a = Side("a", Endpoint("192.0.2.1", 51820))
    b = Side("b", Endpoint("2001:db8::2", 51821))
    a.meet(b)
    b.meet(a)
    return Pair(a, b)
