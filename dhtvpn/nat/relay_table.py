"""Who may be reached and who may send through a volunteer's relay, and how much. Pure.

A member registers the ids under which others know it, from an address that it has proven by a token. Only who
is registered may send: so every octet that is relayed comes from a proven address and goes to one that wanted
it. An id stays with its holder for LEASE_S; who moves to another address shows the claim again.
"""

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Protocol

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.bucket import Bucket
from dhtvpn.mesh.relay_wire import Refused, Register, Registered, Service, Token, relay_id

LEASE_S: Final = 60
"""A registration lives so long; members repeat it three times in that time."""
MAX_SOURCES: Final = 4096
"""Registered addresses, ours: about 4 MB."""
MAX_SOURCES_PER_PREFIX: Final = 64
"""Of one IPv4 /24 or IPv6 /48: a carrier's NAT has many members behind one address, a flooder many ports."""
MAX_IDS_PER_SOURCE: Final = 8
"""A node has an id for each epoch that is read, three at most, in each of its networks on this port."""


class Tokens(Protocol):
    """Issues proofs of address and checks them (discovery.tokens.TokenIssuer)."""

    def issue(self, endpoint: Endpoint, now: float) -> bytes: ...

    def valid(self, token_untrusted: bytes, endpoint: Endpoint, now: float) -> bool: ...


@dataclass(slots=True)
class Source:
    """A registered address."""

    endpoint: Endpoint
    prefix: bytes
    bucket: Bucket
    ids: dict[bytes, float] = field(default_factory=dict)
    """Its ids, with the monotonic second at which each expires."""


class RelayTable:
    """``rate`` and ``source_rate``: octets a second in all and of one address."""

    def __init__(self, tokens: Tokens, *, rate: float, source_rate: float, drops: Drops, now: float) -> None:
        self._tokens, self._drops = tokens, drops
        self._source_rate = source_rate
        self._total = Bucket(rate, now)
        self._sources: dict[Endpoint, Source] = {}
        self._holders: dict[bytes, Source] = {}
        self._prefixes: Counter[bytes] = Counter()
        self._swept_at = now
        self.relayed = self.relayed_octets = 0
        """Datagrams and their octets since the start."""

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def ids(self) -> int:
        """Ids that somebody can be reached by."""
        return len(self._holders)

    def register(self, message: Register, source: Endpoint, now: float) -> Service:
        """Take a registration; returns what to answer, which is never longer than what it answers."""
        if not self._tokens.valid(message.token, source, now):
            return Token(self._tokens.issue(source, now))
        identity = relay_id(message.claim)
        self._sweep(now)
        known = self._sources.get(source) or self._add(source, now)
        if known is None or (identity not in known.ids and len(known.ids) >= MAX_IDS_PER_SOURCE):
            self._drops.count("relay", "full")
            return Refused(identity)
        before = self._holders.get(identity)
        if before is not None and before is not known:
            before.ids.pop(identity, None)
            self._forget_if_empty(before)
        known.ids[identity] = now + LEASE_S
        self._holders[identity] = known
        return Registered(identity, LEASE_S)

    def sender(self, source: Endpoint, now: float) -> Source | None:
        """Who sends from ``source``; None for a stranger."""
        known = self._sources.get(source)
        if known is not None and max(known.ids.values(), default=0.0) > now:
            return known
        self._drops.count("relay", "stranger")
        return None

    def holder(self, identity: bytes, now: float) -> Endpoint | None:
        """Where ``identity`` is reached; None where nobody has registered it."""
        known = self._holders.get(identity)
        if known is not None and known.ids[identity] > now:
            return known.endpoint
        self._drops.count("relay", "not_here")
        return None

    def admit(self, sender: Source, octets: int, now: float, datagrams: int = 1) -> bool:
        """Whether ``octets`` of ``sender`` may be relayed now; counts them if so."""
        if not sender.bucket.take(octets, now):
            self._drops.count("relay", "source_rate", datagrams)
            return False
        if not self._total.take(octets, now):
            self._drops.count("relay", "rate", datagrams)
            return False
        self.relayed += datagrams
        self.relayed_octets += octets
        return True

    def _add(self, endpoint: Endpoint, now: float) -> Source | None:
        prefix = _prefix(endpoint)
        if len(self._sources) >= MAX_SOURCES or self._prefixes[prefix] >= MAX_SOURCES_PER_PREFIX:
            return None
        self._prefixes[prefix] += 1
        source = self._sources[endpoint] = Source(endpoint, prefix, Bucket(self._source_rate, now))
        return source

    def _sweep(self, now: float) -> None:
        """Forget what has expired, at most once a second."""
        if now - self._swept_at < 1.0:
            return
        self._swept_at = now
        for source in list(self._sources.values()):
            for identity in [identity for identity, expires in source.ids.items() if expires <= now]:
                del source.ids[identity]
                if self._holders.get(identity) is source:
                    del self._holders[identity]
            self._forget_if_empty(source)

    def _forget_if_empty(self, source: Source) -> None:
        if source.ids:
            return
        del self._sources[source.endpoint]
        self._prefixes[source.prefix] -= 1
        if not self._prefixes[source.prefix]:
            del self._prefixes[source.prefix]


def _prefix(endpoint: Endpoint) -> bytes:
    """The /24 or /48 that ``endpoint`` is in."""
    address = ipaddress.ip_address(endpoint.host).packed
    return address[:3] if len(address) == 4 else address[:6]
