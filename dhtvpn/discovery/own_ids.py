"""Our own node ids, one per address family, and how we learn the addresses to which they are bound.

What this machine knows itself comes first: an address on the internet at its own interface. Behind a NAT
others tell us: every reply carries the endpoint from which the request was seen. One of them may lie, and
one liar may have many addresses, so those who say the same must be several, of different prefixes, and the
majority. Pure.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dhtvpn.discovery.contact import IPV4, IPV6, family_of
from dhtvpn.discovery.directory import KEY_LENGTH
from dhtvpn.discovery.node_ids import bound_id, fits, is_exempt
from dhtvpn.discovery.shares import holder_of
from dhtvpn.endpoint import Endpoint

AGREEING: Final = 3
"""Prefixes (IPv4 /24, IPv6 /48) that must have seen us at the same address."""

WITNESSES: Final = 8
"""Prefixes whose latest word counts; more than half of them must agree. So who moves our id against the
honest must have most of those whom we asked last."""

MOVE_EVERY_S: Final = 60.0
"""An id changes at most this often, whoever says what: each change costs a lookup."""


@dataclass
class _Own:
    """Of one family. ``address``: the one to which the id is bound, None while we do not know ours."""

    node_id: bytes
    address: str | None = None
    moved_at: float = float("-inf")
    seen: OrderedDict[bytes, str] = field(default_factory=OrderedDict)
    """Prefix of the witness to the address at which it saw us."""


class OwnIds:
    """``ids``: of an earlier run, or of a test; random where there is none. ``addresses``: numeric ones of
    this machine's own interfaces; those that are not on the internet say nothing."""

    def __init__(
        self,
        families: Iterable[int],
        random_bytes: Callable[[int], bytes],
        *,
        ids: Mapping[int, bytes] | None = None,
        addresses: Iterable[str] = (),
    ) -> None:
        self._random_bytes = random_bytes
        given = ids or {}
        self._own = {
            family: _Own(given.get(family) or random_bytes(KEY_LENGTH)) for family in sorted(families)
        }
        for family, own in self._own.items():
            if len(own.node_id) != KEY_LENGTH:
                raise ValueError(f"a node id has {KEY_LENGTH} octets, not {len(own.node_id)} (IPv{family})")
        for host in addresses:
            family = IPV6 if ":" in host else IPV4
            if family in self._own and self._own[family].address is None and not is_exempt(host):
                self._bind(self._own[family], host)

    @property
    def families(self) -> list[int]:
        """Those that we have, IPv4 first."""
        return list(self._own)

    def of(self, family: int) -> bytes:
        """The id that we have in ``family``. Raises KeyError for a family that we do not have."""
        return self._own[family].node_id

    def towards(self, endpoint: Endpoint) -> bytes:
        """The id that whoever is at ``endpoint`` knows us by."""
        return self._own[family_of(endpoint)].node_id

    def all(self) -> list[bytes]:
        """One per family, IPv4 first; two families may have the same."""
        return list(dict.fromkeys(own.node_id for own in self._own.values()))

    def address(self, family: int) -> str | None:
        """To which the id is bound, as far as we know."""
        own = self._own.get(family)
        return own.address if own is not None else None

    def seen_as(self, seen: Endpoint, by: Endpoint, now: float) -> int | None:
        """``by`` answered a request of ours and says where it came from. Returns the family whose id is
        another one now. Who is not on the internet, or saw us inside, is no witness."""
        family = family_of(by)
        own = self._own.get(family)
        if own is None or family_of(seen) != family or is_exempt(by.host) or is_exempt(seen.host):
            return None
        witness = holder_of(by).prefix
        own.seen[witness] = seen.host
        own.seen.move_to_end(witness)
        if len(own.seen) > WITNESSES:
            own.seen.popitem(last=False)
        address, number = Counter(own.seen.values()).most_common(1)[0]
        if address == own.address or number < AGREEING or 2 * number <= len(own.seen):
            return None
        if now - own.moved_at < MOVE_EVERY_S:
            return None
        before = own.node_id
        own.moved_at = now
        self._bind(own, address)
        return family if own.node_id != before else None

    def state(self) -> dict[str, dict[str, str | None]]:
        """For the disk."""
        return {
            str(family): {"id": own.node_id.hex(), "address": own.address}
            for family, own in self._own.items()
        }

    def restore(self, state: Mapping[str, Mapping[str, str | None]]) -> list[int]:
        """Take up the ids of :meth:`state`, before anybody knows ours; one that does not fit an address that
        we know by now is left. Returns the families whose id is another one now.
        Raises ValueError, TypeError or KeyError, and then nothing has changed."""
        kept = {}
        for name, entry in state.items():
            node_id, address = bytes.fromhex(entry["id"] or ""), entry["address"]
            if int(name) not in (IPV4, IPV6) or len(node_id) != KEY_LENGTH:
                raise ValueError("node id")
            if address is not None and not fits(node_id, address):
                raise ValueError("address")
            kept[int(name)] = node_id, address
        changed = []
        for family, (node_id, address) in kept.items():
            own = self._own.get(family)
            if own is None or (own.address is not None and not fits(node_id, own.address)):
                continue
            if own.node_id != node_id:
                changed.append(family)
            own.node_id, own.address = node_id, own.address or address
        return changed

    def _bind(self, own: _Own, address: str) -> None:
        """An id that fits already stays."""
        own.address = address
        if not fits(own.node_id, address):
            own.node_id = bound_id(address, self._random_bytes)
