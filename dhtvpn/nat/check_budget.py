"""How many connectivity checks may go where. Pure; ``now`` in monotonic seconds.

Candidates are what somebody says of himself: a member that names a victim's address must not make its peers
flood it, at once or over time (RFC 8445 section 19.5.1, "voice hammer"). So an address gets a handful of
checks until it has answered one. An answer carries the request's transaction id, authenticated: only who gets
our datagrams there can give it. Incoming checks prove nothing, for their source can be forged.
"""

import ipaddress
from collections import OrderedDict
from typing import Final, TypeVar

from dhtvpn.endpoint import Endpoint

ENDPOINT_BURST, ENDPOINT_RATE = 10.0, 0.1
"""Checks to an endpoint without an answer, at once and per second. Ours: a check is repeated 0.25, 0.75,
1.75, 2.75... seconds after the first, so this lasts for nearly all of an attempt of ten seconds."""

ADDRESS_BURST, ADDRESS_RATE = 20.0, 0.5
"""The same for all ports of an IPv4 address or IPv6 /64 together: some members behind one NAT."""

TRIGGERED_RESERVE: Final = 4.0
"""Beyond these, for checks that the peer's own one brings about: they are the ones that get through."""

TOTAL_BURST, TOTAL_RATE = 500.0, 500.0
"""All checks of a node. Ours: 0.6 Mbit/s at most, while hundreds of members come at once."""

PROVEN_S: Final = 600.0
"""How long an answer counts: an address may have another owner later."""

MAX_REMEMBERED: Final = 4096
"""Addresses and endpoints remembered, the latest used: what a full network of members names."""

Key = TypeVar("Key")


class _Account:
    """What may still be sent. The reserve is used by triggered checks only."""

    __slots__ = ("_at", "_left", "proven_until")

    def __init__(self, burst: float, now: float) -> None:
        self._left, self._at = burst, now
        self.proven_until = float("-inf")

    def has(self, now: float, burst: float, rate: float, reserve: float) -> bool:
        """Whether one more may be sent; ``reserve``: how far below nothing."""
        self._left = min(burst, self._left + max(0.0, now - self._at) * rate)
        self._at = now
        return now < self.proven_until or self._left >= 1.0 - reserve

    def take(self, least: float) -> None:
        self._left = max(least, self._left - 1.0)


class CheckBudget:
    """One per port: the limits are for all agents together."""

    def __init__(self) -> None:
        self._endpoints: OrderedDict[Endpoint, _Account] = OrderedDict()
        self._addresses: OrderedDict[str, _Account] = OrderedDict()
        self._total = _Account(TOTAL_BURST, 0.0)

    def __len__(self) -> int:
        return max(len(self._endpoints), len(self._addresses))

    def take(self, destination: Endpoint, now: float, *, triggered: bool = False) -> bool:
        """Whether a check may be sent to ``destination`` now; then it counts as sent."""
        endpoint = _account(self._endpoints, destination, ENDPOINT_BURST, now)
        address = _account(self._addresses, site_of(destination), ADDRESS_BURST, now)
        reserve = TRIGGERED_RESERVE if triggered else 0.0
        if not (
            endpoint.has(now, ENDPOINT_BURST, ENDPOINT_RATE, reserve)
            and address.has(now, ADDRESS_BURST, ADDRESS_RATE, reserve)
            and self._total.has(now, TOTAL_BURST, TOTAL_RATE, 0.0)
        ):
            return False
        for account in (endpoint, address, self._total):
            account.take(-TRIGGERED_RESERVE)
        return True

    def answered(self, destination: Endpoint, now: float) -> None:
        """An authentic answer to a check came from there."""
        for account in (
            _account(self._endpoints, destination, ENDPOINT_BURST, now),
            _account(self._addresses, site_of(destination), ADDRESS_BURST, now),
        ):
            account.proven_until = now + PROVEN_S


def _account(accounts: OrderedDict[Key, _Account], key: Key, burst: float, now: float) -> _Account:
    account = accounts.get(key)
    if account is None:
        while len(accounts) >= MAX_REMEMBERED:
            accounts.popitem(last=False)
        account = accounts[key] = _Account(burst, now)
    accounts.move_to_end(key)
    return account


def site_of(endpoint: Endpoint) -> str:
    """The IPv4 address or IPv6 /64 of ``endpoint``, as a key."""
    if not endpoint.is_ipv6:
        return endpoint.host
    return str(ipaddress.IPv6Network((endpoint.host, 64), strict=False))
