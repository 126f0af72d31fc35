"""The report as ``netcheck --json`` prints it. docs/netcheck.md explains every key, and a test holds the
two together.

A key is never taken away and never changes its meaning while ``version`` stays; others may be added.
"""

from typing import Final, TypedDict

from dhtvpn.endpoint import Endpoint
from dhtvpn.netcheck.meaning import Finding, meaning
from dhtvpn.netcheck.report import Family, Report, Router
from dhtvpn.netcheck.verdict import direct_with, verdict
from dhtvpn.node import clock

VERSION: Final = 1


class FamilyPart(TypedDict):
    """``ipv4`` and ``ipv6``."""

    udp: str
    addresses: list[str]
    default_route: bool
    public_endpoints: list[str]
    mapping: str
    ports_in_order: bool | None
    filtering: str
    hairpinning: bool | None
    path_mtu: int | None
    asked: int
    answered: int
    rtt_ms: float | None


class RouterPart(TypedDict):
    """One of ``port_mapping.routers``."""

    gateway: str
    own: str
    offered: list[str]
    protocol: str | None
    external: str | None
    double_nat: bool
    detail: str


class PortMappingPart(TypedDict):
    """``port_mapping``."""

    tested: bool
    routers: list[RouterPart]


class DhtPart(TypedDict):
    """``dht``."""

    known: int
    answered: int
    nodes: int
    lookup_ms: float | None


class ClockPart(TypedDict):
    """``clock``."""

    offset_s: float | None
    right: bool | None


class OverlapPart(TypedDict):
    """One of ``machine.overlaps``."""

    network: str
    overlay: str
    route: str


class MachinePart(TypedDict):
    """``machine``."""

    tun_device: bool
    net_admin: bool
    lan_interfaces: list[str]
    overlaps: list[OverlapPart]


class RunningPart(TypedDict):
    """One of ``running``."""

    network: str
    pid: int | None
    udp_port: int | None


class FindingPart(TypedDict):
    """One of ``findings``."""

    code: str
    level: str
    text: str
    advice: str | None


class Document(TypedDict):
    """The whole."""

    version: int
    udp: str
    verdict: str
    direct_with: dict[str, bool | None]
    ipv4: FamilyPart
    ipv6: FamilyPart
    port_mapping: PortMappingPart
    dht: DhtPart
    clock: ClockPart
    machine: MachinePart
    running: list[RunningPart]
    unresolved: list[str]
    udp_port: int
    findings: list[FindingPart]
    took_s: float


def document(report: Report) -> Document:
    """For a program; a person's view is made from it, too."""
    offset_s = report.clock_offset_s
    return {
        "version": VERSION,
        "udp": report.udp.value,
        "verdict": verdict(report).value,
        "direct_with": {peer.value: direct for peer, direct in direct_with(report).items()},
        "ipv4": _family(report.ipv4),
        "ipv6": _family(report.ipv6),
        "port_mapping": {
            "tested": report.routers is not None,
            "routers": [_router(router) for router in report.routers or ()],
        },
        "dht": {
            "known": report.directory.known,
            "answered": report.directory.answered,
            "nodes": report.directory.nodes,
            "lookup_ms": report.directory.lookup_ms,
        },
        "clock": {
            "offset_s": None if offset_s is None else round(offset_s, 1),
            "right": None if offset_s is None else clock.judge([offset_s]) is None,
        },
        "machine": _machine(report),
        "running": [
            {"network": node.network, "pid": node.process_id, "udp_port": node.udp_port}
            for node in report.running
        ],
        "unresolved": list(report.unresolved),
        "udp_port": report.port,
        "findings": [_finding(finding) for finding in meaning(report)],
        "took_s": report.took_s,
    }


def _family(family: Family) -> FamilyPart:
    outside = family.outside
    return {
        "udp": family.udp.value,
        "addresses": list(family.addresses),
        "default_route": family.default_route,
        "public_endpoints": [str(endpoint) for endpoint in outside.public_endpoints],
        "mapping": outside.mapping.value,
        "ports_in_order": outside.ports_in_order,
        "filtering": outside.filtering.value,
        "hairpinning": outside.hairpinning,
        "path_mtu": outside.path_mtu,
        "asked": outside.asked,
        "answered": outside.answered,
        "rtt_ms": outside.rtt_ms,
    }


def _router(router: Router) -> RouterPart:
    return {
        "gateway": router.gateway,
        "own": router.own,
        "offered": list(router.offered),
        "protocol": router.protocol,
        "external": _text(router.external),
        "double_nat": router.double_nat,
        "detail": router.detail,
    }


def _machine(report: Report) -> MachinePart:
    machine = report.machine
    return {
        "tun_device": machine.tun_device,
        "net_admin": machine.net_admin,
        "lan_interfaces": list(machine.lan_interfaces),
        "overlaps": [
            {"network": overlap.network, "overlay": overlap.overlay, "route": overlap.route}
            for overlap in machine.overlaps
        ],
    }


def _finding(finding: Finding) -> FindingPart:
    return {
        "code": finding.code,
        "level": finding.level.value,
        "text": finding.text,
        "advice": finding.advice,
    }


def _text(endpoint: Endpoint | None) -> str | None:
    return None if endpoint is None else str(endpoint)
