"""Fair shares of what is capped: who holds how much, and who gives way when nothing is left.

Addresses are cheap by the prefix, so shares are by prefix first (an IPv4 /24, an IPv6 /48) and by address
inside it. The prefix that holds the most gives way, and only to one that would hold no more than it: so a
prefix below the average keeps everything that it has, whatever the others do (max-min fairness). Pure.
"""

import heapq
import socket
from typing import Final, NamedTuple

from dhtvpn.endpoint import Endpoint

HEAP_SLACK: Final = 64
"""Outdated entries that may stand in the heap beside as many as there are prefixes, times four."""


class Holder(NamedTuple):
    """Who is charged: the first octets of an address, and what one user can have of it.

    ``prefix``: 3 octets of IPv4 (/24), 6 of IPv6 (/48: what a site gets at most, RFC 6177, and what tunnel
    brokers give to anybody). ``address``: all 4 of IPv4, 8 of IPv6 (/64, as contact.address_block).
    """

    prefix: bytes
    address: bytes


OURSELVES: Final = Holder(b"", b"")
"""This node's own: counted, never the one to give way."""


def holder_of(source: Endpoint | None) -> Holder:
    """Whom to charge for what came from ``source``; None is ourselves."""
    if source is None:
        return OURSELVES
    if source.is_ipv6:
        packed = socket.inet_pton(socket.AF_INET6, source.host)
        return Holder(packed[:6], packed[:8])
    packed = socket.inet_pton(socket.AF_INET, source.host)
    return Holder(packed[:3], packed)


class Shares:
    """Amounts by prefix and by address; the unit is the caller's."""

    def __init__(self) -> None:
        self._prefixes: dict[bytes, int] = {}
        self._addresses: dict[bytes, dict[bytes, int]] = {}
        self._heap: list[tuple[int, bytes]] = []

    def add(self, holder: Holder, amount: int) -> None:
        """Charge ``amount``; a negative one gives back."""
        total = self._prefixes.get(holder.prefix, 0) + amount
        addresses = self._addresses.setdefault(holder.prefix, {})
        left = addresses.get(holder.address, 0) + amount
        if left:
            addresses[holder.address] = left
        else:
            addresses.pop(holder.address, None)
        if addresses:
            self._prefixes[holder.prefix] = total
        else:
            del self._addresses[holder.prefix]
            self._prefixes.pop(holder.prefix, None)
        if holder.prefix and addresses:
            heapq.heappush(self._heap, (-total, holder.prefix))
        if len(self._heap) > 4 * len(self._prefixes) + HEAP_SLACK:
            self._heap = [(-held, prefix) for prefix, held in self._prefixes.items() if prefix]
            heapq.heapify(self._heap)

    def of_prefix(self, prefix: bytes) -> int:
        return self._prefixes.get(prefix, 0)

    def of_address(self, holder: Holder) -> int:
        return self._addresses.get(holder.prefix, {}).get(holder.address, 0)

    def gives_way_to(self, newcomer: Holder, amount: int) -> Holder | None:
        """Whose holdings shrink so that ``newcomer`` gets ``amount`` more: another holder, ``newcomer``
        itself where no other holds as much as it would, or None where nobody holds anything."""
        heaviest = self._heaviest_prefix()
        if heaviest is None:
            return None
        would_hold = self.of_prefix(newcomer.prefix) + amount
        if newcomer == OURSELVES or (heaviest != newcomer.prefix and self._prefixes[heaviest] >= would_hold):
            return self._heaviest_address(heaviest)
        return self.gives_way_inside(newcomer, amount)

    def gives_way_inside(self, newcomer: Holder, amount: int) -> Holder | None:
        """The same among the addresses of the newcomer's own prefix."""
        if newcomer.prefix not in self._addresses:
            return None
        heaviest = self._heaviest_address(newcomer.prefix)
        return heaviest if self.of_address(heaviest) >= self.of_address(newcomer) + amount else newcomer

    @property
    def prefixes(self) -> int:
        """How many hold anything."""
        return len(self._prefixes)

    def _heaviest_prefix(self) -> bytes | None:
        while self._heap:
            amount, prefix = self._heap[0]
            if self._prefixes.get(prefix) == -amount:
                return prefix
            heapq.heappop(self._heap)  # it has changed since
        return None

    def _heaviest_address(self, prefix: bytes) -> Holder:
        addresses = self._addresses[prefix]
        return Holder(prefix, max(addresses, key=lambda address: (addresses[address], address)))
