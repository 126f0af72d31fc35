"""What happens in a node, as typed events. Each becomes a line of the events stream (docs/local-api.md).

Nothing secret is in them: short ids, names, endpoints, counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from dhtvpn.mesh.peers import Peer
from dhtvpn.node.path_facts import PathFact, Why

MAX_REASONS: Final = 8
"""Reasons for drops named in one event, the most frequent first."""


@dataclass(frozen=True)
class Happening:
    """One event. ``event`` and ``kind`` are fixed words; those that are ``shown`` are also said to whoever
    runs the node."""

    event: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    shown: ClassVar[bool] = True

    @property
    def text(self) -> str:
        """A sentence for a person."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What a program may want to know beside the sentence, as JSON."""
        return {}


@dataclass(frozen=True)
class OfPeer(Happening):
    """Something about one peer."""

    kind: ClassVar[str] = "peer"

    name: str
    id: str

    def facts(self) -> dict[str, Any]:
        return {"peer": self.name, "id": self.id}


@dataclass(frozen=True)
class PeerFound(OfPeer):
    """A member that was not known before. ``source``: who brought its record."""

    event: ClassVar[str] = "peer-found"
    kind: ClassVar[str] = "member"

    source: str

    @property
    def text(self) -> str:
        return f"{self.name} is found"

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "source": self.source}


@dataclass(frozen=True)
class Connecting(OfPeer):
    """There is no path. ``before`` is the one that was lost, None where there was none."""

    event: ClassVar[str] = "connecting"

    before: PathFact | None
    why: Why | None

    @property
    def text(self) -> str:
        return f"{self.name}: connecting"

    def facts(self) -> dict[str, Any]:
        before = None if self.before is None else self.before.document()
        return {**super().facts(), "from": before, "why": None if self.why is None else self.why.value}


@dataclass(frozen=True)
class Connected(OfPeer):
    """There is a path where there was none."""

    event: ClassVar[str] = "connected"

    address: str
    path: PathFact
    why: Why

    @property
    def text(self) -> str:
        how = f"at {self.path.endpoint}" if self.path.direct else str(self.path)
        return f"{self.name} ({self.address}) is connected {how}"

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "to": self.path.document(), "why": self.why.value}


@dataclass(frozen=True)
class PathChanged(OfPeer):
    """Packets take another path than before."""

    event: ClassVar[str] = "path-changed"

    before: PathFact
    after: PathFact
    why: Why

    @property
    def text(self) -> str:
        return f"{self.name} is reached {self.after} now: {self.why.value}"

    def facts(self) -> dict[str, Any]:
        path = {"from": self.before.document(), "to": self.after.document(), "why": self.why.value}
        return {**super().facts(), **path}


@dataclass(frozen=True)
class Upgraded(PathChanged):
    """From a relay to a direct path."""

    event: ClassVar[str] = "upgraded"


@dataclass(frozen=True)
class FellBack(PathChanged):
    """From a direct path to a relay."""

    event: ClassVar[str] = "fallen-back"


@dataclass(frozen=True)
class Retry(OfPeer):
    """An attempt at a (direct) path has failed; there will be another. Told of the first, second, fourth,
    eighth... in a row."""

    event: ClassVar[str] = "retry"
    shown: ClassVar[bool] = False

    attempt: int
    relayed: bool

    @property
    def text(self) -> str:
        what = "no direct path" if self.relayed else "no path"
        return f"{self.name}: {what} in {self.attempt} attempt{'s' if self.attempt > 1 else ''}, trying again"

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "attempt": self.attempt, "relayed": self.relayed}


@dataclass(frozen=True)
class Unreachable(OfPeer):
    """No path has been found for a while. Trying goes on."""

    event: ClassVar[str] = "unreachable"

    @property
    def text(self) -> str:
        return f"{self.name} is unreachable"


@dataclass(frozen=True)
class Left(OfPeer):
    """The peer has said goodbye, or its record is gone."""

    event: ClassVar[str] = "left"

    @property
    def text(self) -> str:
        return f"{self.name} has left"


@dataclass(frozen=True)
class Dropped(Happening):
    """Datagrams and records were dropped: how many, by reason, in so many seconds."""

    event: ClassVar[str] = "drops"
    kind: ClassVar[str] = "drops"
    shown: ClassVar[bool] = False

    counts: Mapping[str, int]
    over_s: float

    @property
    def text(self) -> str:
        first = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_REASONS]
        more = len(self.counts) - len(first)
        named = ", ".join(f"{reason} {count}" for reason, count in first)
        return f"dropped in {self.over_s:.0f} s: {named}{f', and {more} more kinds' if more else ''}"

    def facts(self) -> dict[str, Any]:
        return {"counts": dict(sorted(self.counts.items())), "over_s": round(self.over_s, 1)}


@dataclass(frozen=True)
class MappingLost(Happening):
    """A public endpoint that we had is another one now, or gone: what peers know of us leads nowhere."""

    event: ClassVar[str] = "nat-mapping-lost"
    kind: ClassVar[str] = "nat"
    shown: ClassVar[bool] = False  # whoever surveys says what is seen now

    before: Sequence[str]
    after: Sequence[str]

    @property
    def text(self) -> str:
        now = ", ".join(self.after) or "unknown"
        return f"not seen from outside as {', '.join(self.before)} any more, but as {now}"

    def facts(self) -> dict[str, Any]:
        return {"from": list(self.before), "to": list(self.after)}


@dataclass(frozen=True)
class EngineEnded(Happening):
    """The engine process is gone: no packet passes until there is another."""

    event: ClassVar[str] = "engine-ended"
    kind: ClassVar[str] = "warning"

    code: int
    pause_s: float

    @property
    def text(self) -> str:
        code = self.code
        how = f"was ended by signal {-code}" if code < 0 else f"ended unexpectedly (exit code {code})"
        when = f"in {self.pause_s:g} s" if self.pause_s else "now"
        return f"the engine process {how}; another one is started {when}"

    def facts(self) -> dict[str, Any]:
        return {"code": self.code, "pause_s": self.pause_s}


@dataclass(frozen=True)
class EngineRestarted(Happening):
    """There is a new one. ``restarts``: so many so far."""

    event: ClassVar[str] = "engine-restarted"
    kind: ClassVar[str] = "warning"

    restarts: int

    @property
    def text(self) -> str:
        return "there is a new engine process: sessions are made again"

    def facts(self) -> dict[str, Any]:
        return {"restarts": self.restarts}


def path_happening(peer: Peer, before: PathFact, after: PathFact, why: Why) -> PathChanged:
    """The event for a change between two paths."""
    if before.direct == after.direct:
        return PathChanged(peer.name, peer.id, before, after, why)
    changed = Upgraded if after.direct else FellBack
    return changed(peer.name, peer.id, before, after, why)
