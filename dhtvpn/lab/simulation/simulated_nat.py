"""A NAT without packets: what RFC 4787's words make of endpoints and time. Pure.

Only outgoing datagrams renew a mapping and a filter's permission (REQ-6 permits that). A datagram that was
let in changes no mapping: what answers it leaves as the mapping says. What is turned round for a host
inside (hairpinning) is not filtered.
"""

import random

from dhtvpn.endpoint import Endpoint
from dhtvpn.lab.nat_behaviour import Allocation, Filtering, Mapping, Nat

FIRST_PORT, LAST_PORT = 20_000, 59_999
"""External ports, where they are not the internal ones."""

SWEEP_AT = 512
"""Entries in one table before those that have expired are taken out of it."""

_Place = tuple[Endpoint, str | Endpoint | None]
"""Whose mapping, and towards whom, as far as the mapping depends on it."""

_Permit = str | Endpoint | None
"""Who may come in, as far as the filter asks."""


class _Binding:
    """One mapping: an external port, its inside endpoint, who may come in, and until when."""

    __slots__ = ("inside", "permits", "port", "used_at")

    def __init__(self, inside: Endpoint, port: int) -> None:
        self.inside, self.port = inside, port
        self.used_at = float("-inf")
        self.permits: dict[_Permit, float] = {}


class SimulatedNat:
    """Between an inside and an outside where it has the address ``host``. Times are seconds of any clock."""

    __slots__ = ("_bindings", "_by_port", "_chance", "_next_port", "behaviour", "host", "mappings_made")

    def __init__(self, behaviour: Nat, host: str, chance: random.Random) -> None:
        self.behaviour = behaviour
        self.host = host
        self.mappings_made = 0
        """More than one for a node with one port: it let its mapping expire, or the mapping is dependent."""
        self._chance = chance
        self._next_port = FIRST_PORT
        self._bindings: dict[_Place, _Binding] = {}
        self._by_port: dict[int, _Binding] = {}

    def outgoing(self, inside: Endpoint, destination: Endpoint, now: float) -> Endpoint:
        """The source that ``destination`` sees of a datagram from ``inside``."""
        place = self._place(inside, destination)
        binding = self._bindings.get(place)
        if binding is None or not self._lives(binding, now):
            binding = self._bind(place, now)
        binding.used_at = now
        binding.permits[self._permit(destination)] = now
        if len(binding.permits) > SWEEP_AT:
            binding.permits = {
                who: at for who, at in binding.permits.items() if now - at < self.behaviour.expiry_s
            }
        return Endpoint(self.host, binding.port)

    def incoming(self, source: Endpoint, port: int, now: float) -> Endpoint | None:
        """Where inside a datagram from ``source`` to the external ``port`` goes; None: it is lost."""
        binding = self._by_port.get(port)
        if binding is None or not self._lives(binding, now):
            return None
        permitted_at = binding.permits.get(self._permit(source))
        if permitted_at is None or now - permitted_at >= self.behaviour.expiry_s:
            return None
        return binding.inside

    def turned(self, inside: Endpoint, port: int, now: float) -> tuple[Endpoint, Endpoint] | None:
        """Source and inside destination of a datagram from ``inside`` to the NAT's own external ``port``;
        None: it is lost."""
        source = self.outgoing(inside, Endpoint(self.host, port), now)
        binding = self._by_port.get(port)
        if not self.behaviour.hairpinning or binding is None or not self._lives(binding, now):
            return None
        return source, binding.inside

    def reboot(self, host: str | None = None) -> None:
        """Forget everything; ``host``: come back with another address."""
        self._bindings.clear()
        self._by_port.clear()
        self.host = host or self.host

    def _bind(self, place: _Place, now: float) -> _Binding:
        if len(self._bindings) > SWEEP_AT:
            self._sweep(now)
        inside = place[0]
        before = self._bindings.get(place)
        if before is not None and self._by_port.get(before.port) is before:
            del self._by_port[before.port]
        binding = _Binding(inside, self._free_port(inside, now))
        self._bindings[place] = self._by_port[binding.port] = binding
        self.mappings_made += 1
        return binding

    def _free_port(self, inside: Endpoint, now: float) -> int:
        """By the allocation; the next free one where that is taken."""
        match self.behaviour.allocation:
            case Allocation.PRESERVING:
                port = inside.port
            case Allocation.RANDOM:
                port = self._chance.randint(FIRST_PORT, LAST_PORT)
            case Allocation.CONTIGUOUS:
                port = self._next_port
        while (taken := self._by_port.get(port)) is not None and self._lives(taken, now):
            port = port + 1 if port < LAST_PORT else FIRST_PORT
        self._next_port = port + 1 if port < LAST_PORT else FIRST_PORT
        return port

    def _sweep(self, now: float) -> None:
        self._bindings = {at: one for at, one in self._bindings.items() if self._lives(one, now)}
        self._by_port = {at: one for at, one in self._by_port.items() if self._lives(one, now)}

    def _lives(self, binding: _Binding, now: float) -> bool:
        return now - binding.used_at < self.behaviour.expiry_s

    def _place(self, inside: Endpoint, destination: Endpoint) -> _Place:
        match self.behaviour.mapping:
            case Mapping.ENDPOINT_INDEPENDENT:
                return inside, None
            case Mapping.ADDRESS_DEPENDENT:
                return inside, destination.host
            case Mapping.ADDRESS_AND_PORT_DEPENDENT:
                return inside, destination

    def _permit(self, outside: Endpoint) -> _Permit:
        match self.behaviour.filtering:
            case Filtering.ENDPOINT_INDEPENDENT:
                return None
            case Filtering.ADDRESS_DEPENDENT:
                return outside.host
            case Filtering.ADDRESS_AND_PORT_DEPENDENT:
                return outside
