"""Packets to an address inside the network that no peer holds yet: the control process is asked who does, and
the first packets wait, few and not for long. What nobody answers for goes back to its sender as unreachable.
"""

from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from dhtvpn.packet import virtio

HOLD_S: Final = 4.0  # ours: the control process answers within 3 s; past this it has not been heard
REFUSED_S: Final = 5.0  # ours: a destination that has no member is answered at once for so long
MAX_DESTINATIONS: Final = 256  # ours: looked for at once; a scan of the network costs no more
MAX_REFUSED: Final = 4096  # ours: remembered as having no member
MAX_PACKETS: Final = 4  # per destination, ours: a connection begins with one or two
MAX_BYTES: Final = 16 * 1024  # per destination, ours; 4 MiB over all


class _Held:
    """What waits for one destination."""

    __slots__ = ("packets", "since", "size")

    def __init__(self, since: float) -> None:
        self.since = since
        self.size = 0
        self.packets: deque[bytes] = deque()


class Unresolved:
    """Destinations that are being looked for, by packed address, oldest first."""

    def __init__(self, ask: Callable[[IPv4Address | IPv6Address], None]) -> None:
        """``ask`` is called once for each destination that somebody begins to send to."""
        self._ask = ask
        self._networks: tuple[IPv4Network | IPv6Network, ...] = ()
        self._held: dict[bytes, _Held] = {}
        self._refused: dict[bytes, float] = {}

    def set_networks(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        """Only destinations inside ``networks`` are asked for; from the start, none is."""
        self._networks = tuple(networks)

    def hold(self, destination: bytes, packet: bytes, now: float) -> bool:
        """Keep ``packet`` (with its virtio header) until it is known who holds ``destination``.

        False: it is not asked for, now or ever, so its sender has to be told. A packet past the caps is
        dropped, as any network drops.
        """
        held = self._held.get(destination)
        if held is None:
            if not self._may_ask(destination, now):
                return False
            held = self._held[destination] = _Held(now)
            self._ask(ip_address(destination))
        if len(held.packets) < MAX_PACKETS and held.size + len(packet) <= MAX_BYTES + virtio.SIZE:
            held.packets.append(packet)
            held.size += len(packet)
        return True

    def refuse(self, destination: IPv4Address | IPv6Address, now: float) -> list[bytes]:
        """There is no such member: what waited, to be answered."""
        held = self._held.pop(destination.packed, None)
        if held is None:
            return []
        self._remember(destination.packed, now)
        return list(held.packets)

    def take(self, holder_of: Callable[[bytes], int | None]) -> list[bytes]:
        """Who holds an address has changed: the packets that somebody takes now, in order."""
        known = [destination for destination in self._held if holder_of(destination) is not None]
        return [packet for destination in known for packet in self._held.pop(destination).packets]

    def expire(self, now: float) -> list[bytes]:
        """What has waited in vain, to be answered."""
        packets: list[bytes] = []
        while self._held:
            first = next(iter(self._held))
            if now - self._held[first].since < HOLD_S:
                break
            packets += self._held.pop(first).packets
            self._remember(first, now)
        return packets

    def next_timeout(self) -> float | None:
        """When :meth:`expire` has something to do."""
        for held in self._held.values():
            return held.since + HOLD_S
        return None

    def __len__(self) -> int:
        """Destinations looked for."""
        return len(self._held)

    def _may_ask(self, destination: bytes, now: float) -> bool:
        refused_at = self._refused.get(destination)
        if refused_at is not None and now - refused_at < REFUSED_S:
            return False
        if len(self._held) >= MAX_DESTINATIONS:
            return False
        address = ip_address(destination)
        return any(address in network for network in self._networks)

    def _remember(self, destination: bytes, now: float) -> None:
        self._refused.pop(destination, None)
        while len(self._refused) >= MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[destination] = now
