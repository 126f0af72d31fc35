"""The simulated internet: lines with addresses, datagrams with delay and loss, octets counted at the wire.

A datagram in flight is one timer on the event loop's heap, nothing more: no task, no queue.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.simulation.latency import Latencies
from dhtvpn.lab.simulation.simulated_nat import SimulatedNat

OVERHEAD = 20 + 8 + 1
"""Octets around a datagram's payload: IPv4 header, UDP header, the port's prefix octet."""

LOSS = 0.01
"""Share of the datagrams that get lost, each way."""

Handler = Callable[[bytes, Endpoint], None]
Tap = Callable[[float, bool, bytes, Endpoint], None]
"""(time, outgoing, datagram, other end)"""


class Line:
    """One site's access: its address, its NAT if it has one, its node's handler, its counters."""

    __slots__ = (
        "endpoint",
        "handler",
        "internet",
        "nat",
        "received",
        "received_octets",
        "sent",
        "sent_octets",
        "site",
        "tap",
        "up",
    )

    def __init__(self, internet: "Internet", endpoint: Endpoint, site: int, nat: SimulatedNat | None) -> None:
        self.internet, self.endpoint, self.site, self.nat = internet, endpoint, site, nat
        self.handler: Handler | None = None
        self.up = True
        self.tap: Tap | None = None
        self.reset_counters()

    def reset_counters(self) -> None:
        """Octets with headers, and datagrams, each way."""
        self.sent = self.received = self.sent_octets = self.received_octets = 0

    def send(self, data: bytes, destination: Endpoint) -> None:
        """What a node's port does with a datagram."""
        if not self.up:
            return
        internet = self.internet
        now = internet.loop.time()
        self.sent += 1
        self.sent_octets += len(data) + OVERHEAD
        if self.tap is not None:
            self.tap(now, True, data, destination)
        source = self.endpoint if self.nat is None else self.nat.outgoing(self.endpoint, destination, now)
        internet.carry(self.site, data, source, destination)

    def deliver(self, data: bytes, source: Endpoint, port: int) -> None:
        """A datagram has come over the line; what a NAT turns away has used the line all the same."""
        if not self.up or self.handler is None:
            return
        now = self.internet.loop.time()
        self.received += 1
        self.received_octets += len(data) + OVERHEAD
        if port != self.endpoint.port if self.nat is None else self.nat.incoming(source, port, now) is None:
            return
        if self.tap is not None:
            self.tap(now, False, data, source)
        self.handler(data, source)


class Internet:
    """Every line, by address. Made inside the running loop."""

    def __init__(self, latencies: Latencies, rng: random.Random, loss: float = LOSS) -> None:
        self.loop = asyncio.get_running_loop()
        self.latencies = latencies
        self.loss = loss
        self.carried = 0
        self.errors: list[str] = []
        """Exceptions that escaped a handler or a task: there must be none."""
        self._lines: dict[str, Line] = {}
        self._random = rng.random
        self.loop.set_exception_handler(self._failed)

    def connect(self, endpoint: Endpoint, site: int, nat: SimulatedNat | None = None) -> Line:
        """A line with this address at this site; the handler is to be set by the caller."""
        line = self._lines[endpoint.host] = Line(self, endpoint, site, nat)
        return line

    def disconnect(self, line: Line) -> None:
        """The address is nobody's from now on."""
        line.up = False
        self._lines.pop(line.endpoint.host, None)

    def carry(self, site: int, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        """Take a datagram from ``site``; ``source`` is what its receiver will see."""
        self.carried += 1
        line = self._lines.get(destination.host)
        if line is None or self._random() < self.loss:
            return
        delay_s = self.latencies.one_way_s(site, line.site)
        self.loop.call_later(delay_s, line.deliver, data, source, destination.port)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")
