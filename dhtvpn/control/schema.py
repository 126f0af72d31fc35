"""What the local API carries: the status document, the lines of its streams, and its errors."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Literal, Protocol, TypedDict

from dhtvpn.errors import (
    DamagedStateError,
    DhtVpnError,
    NotFoundError,
    NotRunningError,
    SystemRefusedError,
    TimedOutError,
    UsageError,
)

API_PREFIX = "/v1"
MAX_REQUEST_BYTES = 64 * 1024  # ours: the largest request is a stock peer's name and key
MAX_PING_COUNT = 1_000_000  # ours: eleven days at one a second
MIN_ID_PREFIX = 4  # characters; a shorter prefix of an id is more likely a mistyped name

PeerState = Literal["connected", "connecting", "unreachable"]
PathKind = Literal["direct", "relayed"]


class NetworkPart(TypedDict):
    """The network; ``id`` is its short form and reveals no secret."""

    name: str
    id: str
    mode: str


class NodePart(TypedDict):
    """This node. ``interface`` is None until the TUN device is up."""

    name: str
    id: str
    ipv4: str | None
    ipv6: str | None
    interface: str | None
    udp_port: int | None


class NatPart(TypedDict):
    """``mapping``: none, endpoint-independent, address-and-port-dependent or unknown (RFC 4787).

    ``filtering``: address-and-port-dependent, unknown, or "not by port": one of the other two."""

    mapping: str
    filtering: str
    public_endpoints: list[str]


class GatewayPart(TypedDict):
    """A router of a default route, and the address of ours that it may forward to. ``protocol``: "pcp",
    "nat-pmp" or "upnp", None where it forwards nothing; then ``detail`` says why. ``external``: where it says
    that it forwards from; ``published``: whether other members are told. ``double_nat``: its own address is
    no public one."""

    gateway: str
    own: str
    protocol: str | None
    external: str | None
    published: bool
    lifetime_left_s: int | None
    double_nat: bool
    detail: str


class PortMappingPart(TypedDict):
    """Whether routers are asked to forward the UDP port; ``detail`` says why there is none to ask."""

    enabled: bool
    detail: str
    gateways: list[GatewayPart]


class DhtPart(TypedDict):
    """Nodes in the routing table, and copies of our record that other nodes confirmed.

    ``clock_offset_s``: how far other nodes' clocks are ahead of ours (negative: behind), None when they are
    not apart enough to matter or nobody has told.
    """

    nodes: int
    records_published: int
    clock_offset_s: float | None


class SourcePart(TypedDict):
    """A source of other members' records: ``lan``, ``kademlia``, ``mainline``, ``hint``, or ``remembered``,
    which is no directory but the peers of an earlier run. ``works``: whether it is of use now; ``detail``
    says more to a person. ``peers_found``: peers that it found first. ``records_published``: holders that
    confirmed the last publication there."""

    name: str
    works: bool
    detail: str
    peers_found: int
    records_published: int


class RelayPart(TypedDict, total=False):
    """Whom packets go through. ``kind``: "volunteer", at ``endpoint``, or "member": the names of the
    ``members`` on the way, the nearest first."""

    kind: str
    endpoint: str | None
    members: list[str]


class PeerPart(TypedDict):
    """One other member. ``endpoint`` and ``relay``: where packets go, or whom they go through. ``found_by``:
    the name of the source that found it first. ``last_handshake_s``: seconds since the last completed
    handshake. ``mtu``: bytes of the longest packet that the path takes. ``cipher``: what seals the packets
    that go there, "aes-256-gcm" or "chacha20-poly1305"."""

    name: str
    id: str
    ipv4: str | None
    ipv6: str | None
    state: PeerState
    path: PathKind | None
    endpoint: str | None
    relay: RelayPart | None
    rtt_ms: float | None
    cipher: str | None
    mtu: int | None
    rx_bytes: int
    tx_bytes: int
    last_handshake_s: float | None
    found_by: str | None


class EnginePart(TypedDict):
    """The engine process. ``restarts``: how often it has ended and was started again; ``offloads``: those of
    docs/protocol/engine.md that are on."""

    pid: int
    restarts: int
    offloads: list[str]


class ConfinementPart(TypedDict):
    """What the control process is confined to: its user's number, the capabilities that it holds, whether
    only named places of the file system can be reached and system calls are filtered, and what the system
    did not let it give up."""

    user: int
    capabilities: list[str]
    file_system: bool
    system_calls: bool
    not_dropped: list[str]


class StatusDocument(TypedDict):
    """What ``GET /v1/status`` answers and ``dhtvpn status --json`` prints."""

    network: NetworkPart
    node: NodePart
    nat: NatPart
    port_mapping: PortMappingPart
    dht: DhtPart
    sources: list[SourcePart]
    peers: list[PeerPart]
    drops: dict[str, int]
    engine: EnginePart
    confinement: ConfinementPart | None
    uptime_s: float


class PingReply(TypedDict):
    """One line of the ping stream. ``rtt_ms`` is None when no answer came in time. ``path``, ``endpoint`` and
    ``relay``: how the answer came. ``became_direct``: those before it did not come directly. ``after_s``:
    since the first was sent."""

    seq: int
    rtt_ms: float | None
    path: PathKind | None
    endpoint: str | None
    relay: RelayPart | None
    became_direct: bool
    after_s: float


class EventLine(TypedDict):
    """One line of the events stream. ``seq`` counts from 1 in each run of the node, ``time`` is Unix time in
    seconds. Many kinds of ``event`` have more keys."""

    seq: int
    time: float
    kind: str
    event: str
    text: str


class PathPart(TypedDict):
    """A path. ``why`` it was chosen, and ``since`` when (Unix time), where that is known."""

    path: PathKind
    endpoint: str | None
    relay: RelayPart | None
    why: str | None
    since: float | None


class CandidatePart(TypedDict):
    """Where a side may be reached. ``kind``: host, reflexive, mapped, relay."""

    endpoint: str
    kind: str


class SidePart(TypedDict):
    """What a side publishes of itself."""

    mapping: str
    filtering: str
    candidates: list[CandidatePart]


class PairPart(TypedDict):
    """A candidate pair. ``kind`` is the remote candidate's; ``result``: succeeded, failed, no answer,
    checking, not tried; ``requests``: checks sent."""

    local: str | None
    remote: str
    kind: str
    result: str
    reason: str | None
    nominated: bool
    requests: int
    rtt_ms: float | None


ChangePart = TypedDict(
    "ChangePart", {"time": float, "from": dict[str, Any] | None, "to": dict[str, Any] | None, "why": str}
)


class AdvicePart(TypedDict):
    """One thing that would help."""

    code: str
    text: str


class PredictionPart(TypedDict):
    """Where the peer may see us, as foreseen; ``failed``: attempts in which that led to nothing."""

    guesses: list[str]
    failed: int


class WhyDocument(TypedDict):
    """What ``GET /v1/why`` answers. ``checked_s``: seconds since the checks of ``pairs`` were over;
    ``prediction``: None where no port of ours was foreseen; ``ways``: relays that could be used now."""

    peer: PeerPart
    path: PathPart | None
    own: SidePart
    theirs: SidePart
    record_age_s: float | None
    attempts: int
    checking: bool
    checked_s: float | None
    pairs: list[PairPart]
    prediction: PredictionPart | None
    ways: list[RelayPart]
    changes: list[ChangePart]
    advice: list[AdvicePart]


class GraphNode(TypedDict):
    """A member. ``name`` is None for one that only others have told of; ``self`` for this node."""

    id: str
    name: str | None
    ipv4: str | None
    state: PeerState | None
    self: bool


GraphEdge = TypedDict(
    "GraphEdge",
    {"from": str, "to": str, "path": PathKind, "through": list[str], "rtt_ms": float | None, "known": str},
)


class GraphDocument(TypedDict):
    """What ``GET /v1/graph`` answers."""

    network: str
    nodes: list[GraphNode]
    edges: list[GraphEdge]


class StockPeer(TypedDict):
    """A plain WireGuard client attached to this node by hand. ``public_key`` is base64."""

    name: str
    public_key: str
    ipv4: str | None
    ipv6: str | None


class StockPeerSetup(StockPeer):
    """What the stock client has to be told. Shown once to whoever adds it: ``preshared_key`` is secret."""

    preshared_key: str
    node_public_key: str
    endpoint: str | None
    allowed_ips: list[str]


class NodeApi(Protocol):
    """What a running node offers to the local API. All calls come from the node's own event loop."""

    def status(self) -> Mapping[str, Any]:
        """A ``StatusDocument``."""
        ...

    def why(self, peer: str) -> Mapping[str, Any]:
        """A ``WhyDocument``. Raises NotFoundError for an unknown or ambiguous peer."""
        ...

    def graph(self) -> Mapping[str, Any]:
        """A ``GraphDocument``."""
        ...

    def ping(
        self, peer: str, count: int, interval_s: float, until_direct: bool
    ) -> AsyncIterator[Mapping[str, Any]]:
        """``count`` times a ``PingReply``, or until one came directly. Raises NotFoundError for an unknown or
        ambiguous peer."""
        ...

    async def changed(self, timeout_s: float) -> None:
        """Return when something about the peers changed, or after ``timeout_s``."""
        ...

    async def leave(self) -> None:
        """Ask the node to stop; returns at once."""
        ...

    def events(self, last: int | None, after: int | None, follow: bool) -> AsyncIterator[Mapping[str, Any]]:
        """``EventLine``s: all that are kept, the ``last`` of them, or those ``after`` a number; with
        ``follow`` then each as it happens, without end."""
        ...

    def stock_peers(self) -> Iterable[Mapping[str, Any]]:
        """A ``StockPeer`` each."""
        ...

    async def add_stock_peer(self, name: str, public_key_b64: str) -> Mapping[str, Any]:
        """A ``StockPeerSetup``. Raises UsageError for a key or name that cannot be used."""
        ...

    async def remove_stock_peer(self, name: str) -> None:
        """Raises NotFoundError."""
        ...


class ErrorKind(TypedDict):
    """One row of ``ERROR_KINDS``."""

    error: type[DhtVpnError]
    http_status: int


# The first row whose class fits is taken, so a subclass stands before its parent.
ERROR_KINDS: dict[str, ErrorKind] = {
    "usage": {"error": UsageError, "http_status": 400},
    "not-found": {"error": NotFoundError, "http_status": 404},
    "not-running": {"error": NotRunningError, "http_status": 503},
    "timed-out": {"error": TimedOutError, "http_status": 408},
    "damaged-state": {"error": DamagedStateError, "http_status": 500},
    "system-refused": {"error": SystemRefusedError, "http_status": 500},
    "failed": {"error": DhtVpnError, "http_status": 500},
}


def kind_of(error: DhtVpnError) -> str:
    """The word that stands for the class of ``error`` on the local API."""
    return next(kind for kind, row in ERROR_KINDS.items() if isinstance(error, row["error"]))


def error_of(kind: str, sentence: str) -> DhtVpnError:
    """The reverse of :func:`kind_of`; a kind that we do not know is a DhtVpnError."""
    row = ERROR_KINDS.get(kind, ERROR_KINDS["failed"])
    return row["error"](sentence)


def peers_matching(peers: Iterable[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """The peers that ``text`` names: by overlay address, else by name, else by a prefix of the id."""
    everyone = list(peers)
    by_address = [peer for peer in everyone if text in (peer["ipv4"], peer["ipv6"])]
    by_name = [peer for peer in everyone if peer["name"].lower() == text.lower()]
    by_id = [peer for peer in everyone if len(text) >= MIN_ID_PREFIX and peer["id"].startswith(text.lower())]
    return by_address or by_name or by_id
