"""Which addresses a member has: computed from the network-id and its node key, never taken on trust.

IPv6 is a hash and needs no settling. IPv4 networks are small, so two nodes can hash to one address:
then the older claim keeps it (the lower node key, when both are equally old) and the other node moves
to its next attempt. Every node applies the same rule to the same claims, so all agree on the holder.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from dhtvpn.membership.network_id import NetworkId

MAX_ATTEMPTS = 16
"""Places at which a node may try: with half of the addresses taken, one node in 65,536 finds none."""

_ULA = 0xFD
"""First byte of a locally assigned unique local address (RFC 4193 section 3.1)."""


@dataclass(frozen=True)
class Claim:
    """A node's word that it has used the address of its ``attempt`` since a time."""

    node_key: bytes
    attempt: int
    """0 to MAX_ATTEMPTS - 1."""
    since: int
    """Unix seconds at which the node took this address."""


def ipv6_network(network_id: NetworkId) -> IPv6Network:
    """The network's /64: fd00::/8, 40 bits of global id and 16 bits of subnet (RFC 4193 section 3.1)."""
    digest = _hash(b"dhtvpn ipv6 net", 7, network_id)
    return IPv6Network((bytes([_ULA]) + digest + bytes(8), 64))


def ipv6_address(network_id: NetworkId, node_key: bytes) -> IPv6Address:
    """The address of ``node_key``: interface id from its hash, with 01 as the two top bits.

    Those bits keep clear of every reserved interface id (RFC 5453): zero, 0200:5eff:fe... and fdff:...
    """
    digest = _hash(b"dhtvpn ipv6 host", 8, network_id, node_key)
    interface_id = bytes([digest[0] & 0x3F | 0x40]) + digest[1:]
    return IPv6Address(ipv6_network(network_id).network_address.packed[:8] + interface_id)


def ipv4_network(network_id: NetworkId) -> IPv4Network:
    """The creator's choice, or else a /16 from 10.1.0.0 to 10.254.0.0."""
    if network_id.ipv4 is not None:
        return network_id.ipv4
    digest = _hash(b"dhtvpn ipv4 net", 8, network_id)
    return IPv4Network((bytes([10, 1 + int.from_bytes(digest) % 254, 0, 0]), 16))


def ipv4_address(network_id: NetworkId, node_key: bytes, attempt: int = 0) -> IPv4Address:
    """The address of ``node_key`` at its ``attempt``; never the network's first or last address.

    The attempts of one node are as many different addresses as the network has, up to MAX_ATTEMPTS
    (double hashing with a step coprime to the number of addresses). Raises ValueError for an attempt
    that is out of range.
    """
    if not 0 <= attempt < MAX_ATTEMPTS:
        raise ValueError(f"attempt {attempt} is not from 0 to {MAX_ATTEMPTS - 1}")
    network = ipv4_network(network_id)
    hosts = network.num_addresses - 2
    digest = _hash(b"dhtvpn ipv4 host", 16, network_id, node_key)
    start, step = int.from_bytes(digest[:8]) % hosts, 1 + int.from_bytes(digest[8:]) % hosts
    while math.gcd(step, hosts) != 1:
        step += 1
    return network.network_address + 1 + (start + attempt * step) % hosts


def yields(mine: Claim, other: Claim) -> bool:
    """Whether ``mine`` gives way to ``other``, when both are for one address: the older claim stays,
    of two equally old ones that of the lower node key. Of two different nodes exactly one yields."""
    return (other.since, other.node_key) < (mine.since, mine.node_key) and other.node_key != mine.node_key


def holders(network_id: NetworkId, claims: Iterable[Claim]) -> dict[IPv4Address, Claim]:
    """Of each address that is claimed, the claim that stands. The order of ``claims`` does not matter."""
    standing: dict[IPv4Address, Claim] = {}
    for claim in claims:
        address = ipv4_address(network_id, claim.node_key, claim.attempt)
        holder = standing.get(address)
        if holder is None or yields(holder, claim):
            standing[address] = claim
    return standing


def settle(network_id: NetworkId, mine: Claim, others: Iterable[Claim], unix_time: float) -> Claim | None:
    """The claim that this node makes from now on: ``mine`` while nobody beats it, otherwise the first
    later attempt at an address that nobody claims, counted from ``unix_time``.

    None when every attempt is taken: the network is full for this node, and it goes without IPv4.
    """
    standing = holders(network_id, (claim for claim in others if claim.node_key != mine.node_key))
    holder = standing.get(ipv4_address(network_id, mine.node_key, mine.attempt))
    if holder is None or not yields(mine, holder):
        return mine
    for offset in range(1, MAX_ATTEMPTS):
        attempt = (mine.attempt + offset) % MAX_ATTEMPTS
        if ipv4_address(network_id, mine.node_key, attempt) not in standing:
            return Claim(mine.node_key, attempt, int(unix_time))
    return None


def _hash(domain: bytes, size: int, network_id: NetworkId, data: bytes = b"") -> bytes:
    return hashlib.blake2b(data, digest_size=size, key=network_id.public_key, person=domain).digest()
