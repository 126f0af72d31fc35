"""What is known of a path: where it leads, since when, and why it was chosen."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer
from dhtvpn.mesh.relayed import is_relayed


class Why(Enum):
    """Why packets take a path. The value is what a person reads."""

    CHECKS = "connectivity checks found it"
    PREDICTION = "connectivity checks found it, at a foreseen port"
    KNOCK = "the peer answered where it was before"
    HANDSHAKE = "the peer's handshake came that way"
    DIRECT_WORKS = "a direct path works"
    RELAYED_FIRST = "a relay works, and no direct path does yet"
    SILENT = "nothing came back any more by the path before"
    PEER_LEFT_PATH = "the peer has left the path before"
    RELAY_GONE = "the relay on the path before is gone, or does not know the peer"
    BETTER_RELAY = "it delays or drops less"
    OTHER_RELAY = "the relay before failed"
    ROAMED = "the peer's packets come from there now"
    NETWORK_CHANGED = "the network of this machine has changed"


@dataclass(frozen=True)
class PathFact:
    """One path. A direct one has an ``endpoint``; a relayed one leads through ``members``, the nearest first,
    or a ``volunteer``."""

    direct: bool
    endpoint: str | None = None
    members: tuple[str, ...] = ()
    volunteer: str | None = None

    @property
    def relay(self) -> dict[str, Any] | None:
        """Whom packets go through, as the status document says it."""
        if self.direct:
            return None
        if self.members:
            return {"kind": "member", "members": list(self.members)}
        return {"kind": "volunteer", "endpoint": self.volunteer}

    def document(self) -> dict[str, Any]:
        """For the local API: ``path``, ``endpoint`` and ``relay``, as in the status document."""
        kind = "direct" if self.direct else "relayed"
        return {"path": kind, "endpoint": self.endpoint, "relay": self.relay}

    def __str__(self) -> str:
        if self.direct:
            return f"directly at {self.endpoint}"
        if self.members:
            return f"through {', '.join(self.members)}"
        return f"through the relay at {self.volunteer}"


@dataclass(frozen=True)
class PathChange:
    """Packets to a peer took another path. ``before`` or ``after`` is None where there was none. ``at`` is
    Unix time in seconds."""

    at: float
    before: PathFact | None
    after: PathFact | None
    why: Why

    def document(self) -> dict[str, Any]:
        """For the local API."""
        return {
            "time": self.at,
            "from": None if self.before is None else self.before.document(),
            "to": None if self.after is None else self.after.document(),
            "why": self.why.value,
        }


class KnowsRelays(Protocol):
    """Tells whom an endpoint beyond a relay leads through (node/relaying.py)."""

    def members_of(self, endpoint: Endpoint | None) -> list[Peer]: ...

    def volunteer_of(self, endpoint: Endpoint | None) -> Endpoint | None: ...


def path_fact(endpoint: Endpoint | None, relays: KnowsRelays) -> PathFact:
    """The path that leads to ``endpoint``."""
    if not is_relayed(endpoint):
        return PathFact(True, None if endpoint is None else str(endpoint))
    volunteer = relays.volunteer_of(endpoint)
    names = tuple(member.name for member in relays.members_of(endpoint))
    return PathFact(False, None, names, None if volunteer is None else str(volunteer))


def likely_reason(before: PathFact | None, after: PathFact) -> Why:
    """Where nobody has told one."""
    if before is None:
        return Why.HANDSHAKE if after.direct else Why.RELAYED_FIRST
    if after.direct:
        return Why.ROAMED if before.direct else Why.DIRECT_WORKS
    return Why.SILENT if before.direct else Why.OTHER_RELAY
