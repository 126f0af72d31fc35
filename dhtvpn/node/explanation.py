"""The document behind ``dhtvpn why PEER``: what was tried, what was chosen and why, what would be better."""

import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from dhtvpn.mesh.peers import Occasion, Peer
from dhtvpn.nat.candidates import CandidateKind as PairKind
from dhtvpn.nat.checked_pairs import CheckedPair, PairResult
from dhtvpn.node.advice import Asked, Side, Situation, advice
from dhtvpn.node.members import Member
from dhtvpn.node.path_facts import path_fact
from dhtvpn.node.status import peer_document
from dhtvpn.records.record import (
    NOTHING_KNOWN,
    Candidate,
    CandidateKind,
    NatBehaviour,
    PublishedFiltering,
    PublishedMapping,
)

if TYPE_CHECKING:
    from dhtvpn.node.node import Node

MAPPINGS = {
    PublishedMapping.UNKNOWN: "unknown",
    PublishedMapping.NONE: "none",
    PublishedMapping.ENDPOINT_INDEPENDENT: "endpoint-independent",
    PublishedMapping.DEPENDENT: "address-and-port-dependent",
}
FILTERINGS = {
    PublishedFiltering.UNKNOWN: "unknown",
    PublishedFiltering.NOT_BY_PORT: "not by port",
    PublishedFiltering.BY_PORT: "address-and-port-dependent",
}
NATS_IN_THE_WAY = "the two NATs let no such check through"
ANOTHER_PORT = "its NAT has not chosen this port"
NOT_SENT_THERE = "nothing may be sent to such an address"


def explanation(node: "Node", peer: Peer) -> dict[str, Any]:
    """The document about ``peer`` as of now."""
    member = node.members.of(peer)
    theirs = NOTHING_KNOWN if member is None else member.nat
    return {
        "peer": peer_document(node, peer),
        "path": _path(node, peer),
        "own": _nat(node.surroundings.nat, _texts(node.surroundings.candidates())),
        "theirs": _nat(theirs, [] if member is None else _texts(member.connector.candidates)),
        "record_age_s": _record_age_s(member),
        "attempts": 0 if member is None else member.connector.attempts,
        "checking": member is not None and member.connector.running,
        "checked_s": _rounded(None if member is None else member.connector.checked_s),
        "pairs": _pairs(node, member),
        "prediction": _prediction(node, peer),
        "ways": [path_fact(way, node.relaying).relay for way in node.relaying.ways_now(peer)],
        "changes": [change.document() for change in node.reporter.history.changes(peer)],
        "advice": [
            {"code": each.code.value, "text": each.text} for each in advice(_situation(node, peer, member))
        ],
    }


def _path(node: "Node", peer: Peer) -> dict[str, Any] | None:
    if peer.path is None:
        return None
    reason = node.reporter.history.reason(peer)
    return {
        **path_fact(peer.endpoint, node.relaying).document(),
        "why": None if reason is None else reason[0].value,
        "since": None if reason is None else reason[1],
    }


def _nat(nat: NatBehaviour, candidates: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What a side publishes: of its NAT, and where it may be reached."""
    return {
        "mapping": MAPPINGS[nat.mapping],
        "filtering": FILTERINGS[nat.filtering],
        "candidates": list(candidates),
    }


def _texts(candidates: Sequence[Candidate]) -> list[dict[str, str]]:
    return [{"endpoint": str(each.endpoint), "kind": each.kind.name.lower()} for each in candidates]


def _record_age_s(member: Member | None) -> float | None:
    if member is None or not member.record_seen_at:
        return None
    return round(max(0.0, time.time() - member.record_seen_at), 1)


def _pairs(node: "Node", member: Member | None) -> list[dict[str, Any]]:
    if member is None:
        return []
    punches = node.surroundings.nat.punches(member.nat)
    checked = [_pair(pair, punches) for pair in member.connector.pairs]
    left_out = [
        {
            "local": None,
            "remote": str(candidate.endpoint),
            "kind": candidate.kind.name.lower(),
            "result": PairResult.NOT_TRIED.value,
            "reason": NOT_SENT_THERE,
            "nominated": False,
            "requests": 0,
            "rtt_ms": None,
        }
        for candidate in member.unusable
    ]
    return [*checked, *left_out]


def _prediction(node: "Node", peer: Peer) -> dict[str, Any] | None:
    """Where the peer may see us, and how often that has led to nothing; None where it was not foreseen."""
    tries = node.prediction.tries(peer)
    if not tries.guesses:
        return None
    return {"guesses": [str(guess) for guess in tries.guesses], "failed": tries.failed}


def _pair(pair: CheckedPair, punches: bool | None) -> dict[str, Any]:
    reason = pair.reason
    public = pair.remote_kind.name == CandidateKind.REFLEXIVE.name
    if reason is None and pair.result is PairResult.NO_ANSWER and public and punches is False:
        reason = NATS_IN_THE_WAY
    if reason is None and pair.result is PairResult.NO_ANSWER and pair.remote_kind is PairKind.PREDICTED:
        reason = ANOTHER_PORT
    return {
        "local": None if pair.local is None else str(pair.local),
        "remote": str(pair.remote),
        "kind": pair.remote_kind.name.lower(),
        "result": pair.result.value,
        "reason": reason,
        "nominated": pair.nominated,
        "requests": pair.requests,
        "rtt_ms": _rounded(pair.rtt_ms, 2),
    }


def _situation(node: "Node", peer: Peer, member: Member | None) -> Situation:
    own = node.surroundings.candidates()
    theirs = () if member is None else member.connector.candidates
    pairs = () if member is None else member.connector.pairs
    name = node.config.hostname
    return Situation(
        own=replace(_side(name, node.surroundings.nat, own, node.port.port), asked=_asked(node)),
        peer=_side(peer.name, NOTHING_KNOWN if member is None else member.nat, theirs, _host_port(theirs)),
        direct=peer.path == "direct",
        connected=peer.path is not None,
        stock=member is None,
        left=peer.path is None and peer.last_occasion is Occasion.GONE,
        answered=node.surroundings.answered,
        clock_apart_s=node.clock.offset_s,
        record_age_s=_record_age_s(member),
        predictions_failed=node.prediction.tries(peer).failed,
        checking=member is not None and member.connector.running and member.connector.attempts <= 1,
        budget_used_up=any("budget" in (pair.reason or "") for pair in pairs),
        relays=bool(node.relaying.ways_now(peer)),
    )


def _asked(node: "Node") -> Asked:
    mapper = node.port_mapper
    if mapper is None:
        return Asked.NOT_ASKED
    return Asked.IN_VAIN if any(found.double_nat for found in mapper.conditions()) else Asked.UNKNOWN


def _side(name: str, nat: NatBehaviour, candidates: Sequence[Candidate], port: int | None) -> Side:
    return Side(
        name=name,
        nat=nat,
        ipv6=any(ip_address(each.endpoint.host).version == 6 and _is_global(each) for each in candidates),
        mapped=any(each.kind is CandidateKind.MAPPED for each in candidates),
        port=port,
    )


def _is_global(candidate: Candidate) -> bool:
    address = ip_address(candidate.endpoint.host)
    return not (address.is_link_local or address.is_private)


def _host_port(candidates: Sequence[Candidate]) -> int | None:
    """The peer's own port: that of its interfaces, whatever its NAT makes of it."""
    return next((each.endpoint.port for each in candidates if each.kind is CandidateKind.HOST), None)


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
