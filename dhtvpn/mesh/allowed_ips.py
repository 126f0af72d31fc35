"""Allowed IPs: which peer an overlay address belongs to, by longest prefix (WireGuard's cryptokey routing).

The table answers in both directions: a packet leaves to the peer that holds its destination, and a packet
from a peer is let in only if that peer holds its source. Host routes stand in a dictionary of their own,
``hosts``, so the usual lookup is one step; other prefixes are tried from the longest down.
"""

from ipaddress import IPv4Network, IPv6Network
from typing import Final

Network = IPv4Network | IPv6Network

MAX_NETWORKS: Final = 1 << 17  # ours: two host routes for each of 64 Ki peers


class AllowedIps:
    """Longest-prefix match from an address in network byte order (4 or 16 bytes) to a peer's number."""

    def __init__(self) -> None:
        self.hosts: dict[bytes, int] = {}
        """Peer by whole address. For reading in the hot path; change it through the methods only."""
        self._prefixes: dict[int, dict[int, dict[int, int]]] = {4: {}, 16: {}}
        # address length in bytes -> prefix length, longest first -> network as a number -> peer

    def __len__(self) -> int:
        tables = (table for family in self._prefixes.values() for table in family.values())
        return len(self.hosts) + sum(len(table) for table in tables)

    def insert(self, network: Network, peer: int) -> None:
        """Give ``network`` to ``peer``, and take it from whoever held exactly it.

        Raises ValueError when the table is full.
        """
        if len(self) >= MAX_NETWORKS and self.holder(network) is None:
            raise ValueError(f"more than {MAX_NETWORKS} allowed IPs")
        address = network.network_address.packed
        if network.prefixlen == network.max_prefixlen:
            self.hosts[address] = peer
            return
        family = self._prefixes[len(address)]
        if network.prefixlen not in family:
            family[network.prefixlen] = {}
            self._prefixes[len(address)] = dict(sorted(family.items(), reverse=True))
            family = self._prefixes[len(address)]
        family[network.prefixlen][int(network.network_address)] = peer

    def remove(self, network: Network) -> None:
        """Take ``network`` from whoever holds exactly it; nothing happens when nobody does."""
        address = network.network_address.packed
        if network.prefixlen == network.max_prefixlen:
            self.hosts.pop(address, None)
            return
        family = self._prefixes[len(address)]
        table = family.get(network.prefixlen)
        if table is not None:
            table.pop(int(network.network_address), None)
            if not table:
                del family[network.prefixlen]

    def remove_peer(self, peer: int) -> None:
        """Take every network from ``peer``."""
        for address in [address for address, holder in self.hosts.items() if holder == peer]:
            del self.hosts[address]
        for family in self._prefixes.values():
            for length, table in list(family.items()):
                for number in [number for number, holder in table.items() if holder == peer]:
                    del table[number]
                if not table:
                    del family[length]

    def holder(self, network: Network) -> int | None:
        """The peer that holds exactly ``network``, or None."""
        address = network.network_address.packed
        if network.prefixlen == network.max_prefixlen:
            return self.hosts.get(address)
        return self._prefixes[len(address)].get(network.prefixlen, {}).get(int(network.network_address))

    def lookup(self, address: bytes) -> int | None:
        """The peer with the longest prefix that holds ``address``, or None (also for a wrong length)."""
        peer = self.hosts.get(address)
        if peer is not None:
            return peer
        size = len(address)
        family = self._prefixes.get(size)
        if not family:
            return None
        number, bits = int.from_bytes(address, "big"), size * 8
        for length, table in family.items():
            peer = table.get(number >> (bits - length) << (bits - length))
            if peer is not None:
                return peer
        return None
