"""What guessing a port behind an address-and-port-dependent ("symmetric") NAT is worth. Pure, with seeds.

Two ways are known. *Prediction*: the NAT hands out ports in order, so the next one follows the last that a
STUN server saw, or lies between two that it saw. *Many sockets* ("birthday"): the side behind it opens k
sockets, each of which gets a random port, and the other side tries n random ports. Each function plays one
attempt and tells whether some datagram of one side would be let in by the other's NAT, which filters by port.
"""

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final

PORTS: Final = 65536 - 1024
"""What a NAT may choose from (RFC 4787 REQ-3 leaves 1024 to 65535)."""


class Allocation(Enum):
    """How a NAT picks the port of a new mapping."""

    SEQUENTIAL = "next port"
    RANDOM = "random"


@dataclass
class Nat:
    """One NAT. ``others_per_s``: new mappings of other machines behind it."""

    allocation: Allocation
    others_per_s: float
    chance: Random
    next_port: int = 0

    def pass_time(self, duration_s: float) -> None:
        """Others use ports meanwhile."""
        at = self._pause()
        while at < duration_s:
            self.next_port += 1
            at += self._pause()

    def new_mapping(self) -> int:
        """The port, from 0 to PORTS - 1, for a destination that is new."""
        if self.allocation is Allocation.RANDOM:
            return self.chance.randrange(PORTS)
        self.next_port += 1
        return self.next_port % PORTS

    def _pause(self) -> float:
        return self.chance.expovariate(self.others_per_s) if self.others_per_s else float("inf")


def predict_one(nat: Nat, seen_ago_s: float, guesses: int) -> bool:
    """Symmetric against port-restricted: ``guesses`` datagrams to the ports after the one seen last."""
    last = nat.new_mapping()
    nat.pass_time(seen_ago_s)
    return 0 < (nat.new_mapping() - last) % PORTS <= guesses


def between_looks(nat: Nat, apart_s: float, guesses: int) -> bool:
    """Symmetric against port-restricted: a look so long before the mapping, another one as long behind it,
    and all ports between the two, if they are no more than ``guesses``."""
    before = nat.new_mapping()
    nat.pass_time(apart_s)
    nat.new_mapping()
    nat.pass_time(apart_s)
    return (nat.new_mapping() - before) % PORTS - 1 <= guesses


def predict_both(one: Nat, other: Nat, seen_ago_s: float, guesses: int) -> bool:
    """Symmetric against symmetric: each side sends to the other's next ports in turn, 5 ms apart, and each of
    these datagrams takes a new port of its own NAT."""
    last_one, last_other = one.new_mapping(), other.new_mapping()
    one.pass_time(seen_ago_s)
    other.pass_time(seen_ago_s)
    from_one: set[tuple[int, int]] = set()
    from_other: set[tuple[int, int]] = set()
    for number in range(1, guesses + 1):
        from_one.add((one.new_mapping(), (last_other + number) % PORTS))
        from_other.add(((last_one + number) % PORTS, other.new_mapping()))
        one.pass_time(0.005)
        other.pass_time(0.005)
    return bool(from_one & from_other)


def many_sockets_one(sockets: int, guesses: int, chance: Random) -> bool:
    """Symmetric with random ports against port-restricted: ``sockets`` + ``guesses`` datagrams."""
    open_ports = {chance.randrange(PORTS) for _ in range(sockets)}
    return any(chance.randrange(PORTS) in open_ports for _ in range(guesses))


def many_sockets_both(sockets: int, guesses: int, chance: Random) -> bool:
    """Symmetric against symmetric, both random: each of ``sockets`` on either side tries ``guesses`` ports of
    the other side, and every try has a random port of its own."""
    tries = sockets * guesses
    from_one = {(chance.randrange(PORTS), chance.randrange(PORTS)) for _ in range(tries)}
    return any((chance.randrange(PORTS), chance.randrange(PORTS)) in from_one for _ in range(tries))
