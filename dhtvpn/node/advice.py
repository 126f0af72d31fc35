"""What would make the path to a peer direct, or give it one at all. Pure: facts in, sentences out.

A sentence names what a person can do, where, and is only given where the facts say that it would help. The
codes are for programs (docs/local-api.md).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from dhtvpn.records.record import NatBehaviour, PublishedFiltering, PublishedMapping

STALE_RECORD_S: Final = 2 * 3600.0
"""A record is published again every hour; one that is older is of a node that is gone or cannot publish."""
CLOCK_APART_S: Final = 300.0
"""As node.clock: further apart, records are refused by and by."""


class Code(Enum):
    """What an advice is about."""

    STOCK = "stock-peer"
    LEFT = "left"
    CHECKING = "checking"
    NO_UDP = "no-udp"
    CLOCK = "clock"
    NO_RECORD = "no-record"
    STALE_RECORD = "stale-record"
    PORT_MAPPING = "port-mapping"
    FORWARD_PORT = "forward-port"
    IPV6 = "ipv6"
    IPV6_FIREWALL = "ipv6-firewall"
    FIREWALL = "firewall"
    NAT_UNKNOWN = "nat-unknown"
    BUDGET = "budget"
    NO_RELAY = "no-relay"


@dataclass(frozen=True)
class Advice:
    """One thing to do, or to wait for."""

    code: Code
    text: str


class Asked(Enum):
    """What has come of asking a router for a port, where none was opened."""

    UNKNOWN = 0
    NOT_ASKED = 1
    """The node was told not to (--no-port-mapping)."""
    IN_VAIN = 2
    """The router's own address is not public: another NAT stands before it."""


@dataclass(frozen=True)
class Side:
    """What is known of one end. ``ipv6``: it has a global IPv6 address. ``mapped``: its router has opened a
    port for it. ``port``: its own UDP port, None where that is not known."""

    name: str
    nat: NatBehaviour
    ipv6: bool
    mapped: bool
    port: int | None
    asked: Asked = Asked.UNKNOWN

    @property
    def behind_nat(self) -> bool:
        return self.nat.mapping is not PublishedMapping.NONE

    @property
    def symmetric(self) -> bool:
        return self.nat.mapping is PublishedMapping.DEPENDENT

    def described(self) -> str:
        """What is in front of it, in words."""
        if self.symmetric:
            return "a NAT with another port for every destination (symmetric)"
        if self.nat.filtering is PublishedFiltering.BY_PORT:
            return "a NAT that lets in answers only from the very port asked (port-restricted)"
        return "a NAT" if self.behind_nat else "no NAT"


@dataclass(frozen=True)
class Situation:
    """All that the advice depends on. Ages in seconds; None where there is nothing to have an age."""

    own: Side
    peer: Side
    direct: bool
    connected: bool
    stock: bool = False
    left: bool = False
    answered: bool = True
    """Somebody outside answers what we send over UDP."""
    clock_apart_s: float | None = None
    record_age_s: float | None = 0.0
    checking: bool = False
    """The first attempt is under way."""
    predictions_failed: int = 0
    """So often our port towards the peer was foreseen, and no direct path came of it."""
    budget_used_up: bool = False
    """Pairs were not checked, or not any more, because too much went to addresses that do not answer."""
    relays: bool = True
    """There is a way through a relay."""


def advice(situation: Situation) -> list[Advice]:
    """What to do, the surest first; empty where the path is direct."""
    if situation.direct:
        return []
    whole = _of_the_peer(situation)
    if whole:
        return whole
    return [*_of_this_node(situation), *_of_the_pair(situation), *_of_relays(situation)]


def _of_the_peer(now: Situation) -> list[Advice]:
    """Where nothing else can be said."""
    name = now.peer.name
    if now.stock:
        text = f"{name} is a plain WireGuard client: it must come to this node; see its Endpoint setting"
        return [Advice(Code.STOCK, text)]
    if now.left:
        return [Advice(Code.LEFT, f"{name} has left the network: start dhtvpn there")]
    if now.checking:
        text = "the first attempt is under way: ask again in some seconds"
        return [Advice(Code.CHECKING, text)]
    return []


def _of_this_node(now: Situation) -> list[Advice]:
    found = []
    if not now.answered:
        text = (
            "nobody answers this machine over UDP: let UDP out in its firewall and its network's, from port "
            f"{now.own.port}, and the answers in"
        )
        found.append(Advice(Code.NO_UDP, text))
    if now.clock_apart_s is not None and abs(now.clock_apart_s) > CLOCK_APART_S:
        text = f"this machine's clock is {abs(now.clock_apart_s) / 60:.0f} min wrong: set it"
        found.append(Advice(Code.CLOCK, text))
    name = now.peer.name
    if now.record_age_s is None:
        text = (
            f"no record of {name} has been seen since this node started: see with 'dhtvpn status' there "
            "whether it runs and reaches a source"
        )
        found.append(Advice(Code.NO_RECORD, text))
    elif now.record_age_s > STALE_RECORD_S:
        text = (
            f"the newest record of {name} is {now.record_age_s / 3600:.0f} h old: see with 'dhtvpn status' "
            "there whether it still runs"
        )
        found.append(Advice(Code.STALE_RECORD, text))
    return found


def _of_the_pair(now: Situation) -> list[Advice]:
    if not now.answered or now.record_age_s is None:
        return []  # what keeps the two apart is not known then
    own, peer = now.own, now.peer
    gets_through = True if own.mapped or peer.mapped else own.nat.punches(peer.nat)
    if gets_through is False:
        return [*_port_mappings(own, peer, now.predictions_failed), *_ipv6(own, peer)]
    if gets_through is None:
        unknown = [side.name for side in (own, peer) if _is_unknown(side)]
        text = (
            f"what the NAT does in front of {' and '.join(unknown) or 'the two'} is not known yet: with a "
            "second DHT node to ask (--bootstrap) it is found out"
        )
        return [Advice(Code.NAT_UNKNOWN, text), *_ipv6(own, peer)]
    return _firewalls(now)


def _port_mappings(own: Side, peer: Side, predictions_failed: int) -> list[Advice]:
    """One side that the other can reach is enough."""
    sides = [side for side in (own, peer) if side.behind_nat and side.asked is not Asked.IN_VAIN]
    text = (
        f"{own.name} is behind {own.described()}, {peer.name} behind {peer.described()}: such a pair finds "
        "no direct path."
    )
    if predictions_failed:
        times = "once" if predictions_failed == 1 else f"{predictions_failed} times"
        text += f" To foresee the port of {own.name} was tried {times}, in vain."
    if own.asked is Asked.IN_VAIN:
        text += f" Another NAT, perhaps the provider's, stands before the router of {own.name}."
    if own.asked is Asked.NOT_ASKED:
        text += " Join without --no-port-mapping here."
    where = " or ".join(f"of {side.name}" for side in sides)
    mapping = Advice(
        Code.PORT_MAPPING, f"{text} Turn on port mapping (PCP, NAT-PMP or UPnP) in the router {where}"
    )
    forward = (
        f"or forward a UDP port by hand in {'one of these routers' if sides[1:] else 'it'}: "
        + "; ".join(
            f"{'port ' + str(side.port) if side.port else 'the port of dhtvpn'} to {side.name}"
            for side in sides
        )
    )
    return [mapping, Advice(Code.FORWARD_PORT, forward)]


def _ipv6(own: Side, peer: Side) -> list[Advice]:
    if own.ipv6 and peer.ipv6:
        text = (
            f"both sides have IPv6, and no check gets through: let UDP in over IPv6 in the firewall of "
            f"{own.name} (port {own.port}) or of {peer.name}"
        )
        return [Advice(Code.IPV6_FIREWALL, text)]
    lacking = " and ".join(side.name for side in (own, peer) if not side.ipv6)
    return [Advice(Code.IPV6, f"IPv6 needs no NAT: turn it on at {lacking}")]


def _firewalls(now: Situation) -> list[Advice]:
    """Nothing that is known of the NATs is in the way."""
    own, peer = now.own, now.peer
    ports = f"port {own.port} at {own.name}" + (f", port {peer.port} at {peer.name}" if peer.port else "")
    text = (
        f"the NATs of the two would let checks through, and none does: a firewall drops UDP between them; "
        f"let UDP in ({ports})"
    )
    found = [Advice(Code.FIREWALL, text)]
    if now.budget_used_up:
        text = (
            f"{peer.name} names addresses that do not answer; not all of them are tried at once. It goes on "
            "by itself"
        )
        found.append(Advice(Code.BUDGET, text))
    return found


def _of_relays(now: Situation) -> list[Advice]:
    if now.connected or now.relays:
        return []
    text = (
        "there is no relay either: run 'dhtvpn bootstrap --relay' on a machine that both reach, or let a "
        "member that both reach relay (join without --no-relay)"
    )
    return [Advice(Code.NO_RELAY, text)]


def _is_unknown(side: Side) -> bool:
    nat = side.nat
    if nat.mapping is PublishedMapping.UNKNOWN:
        return True
    return side.behind_nat and nat.filtering is PublishedFiltering.UNKNOWN
